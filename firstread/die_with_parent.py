"""Become a program that cannot outlive its parent.

    python -I -S die_with_parent.py PARENT_PID SIGNAL USER PROGRAM [ARGUMENT…]

USER is the account to become first, or ``-`` to stay. A file of its own, run before the program:
doing this between fork and exec is unsafe in a process with threads, and the account that runs
Postgres may not be able to read the interpreter.
"""

import ctypes
import os
import pwd
import sys

PR_SET_PDEATHSIG = 1  # prctl(2)


def become(parent: int, signal_number: int, user: str, program: list[str]) -> None:
    """Take on the account, ask the kernel for a signal at the parent's death, then exec."""
    if user != "-":
        account = pwd.getpwnam(user)
        os.setgroups([])
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    # After the change of account: the kernel forgets the request when credentials change.
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:
        sys.exit("the parent is already gone")
    os.execv(program[0], program)  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    become(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
