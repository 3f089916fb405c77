"""The account that runs the embedded servers: ourselves, or as root one without any rights."""

import os
import pwd
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

from common.errors import ConfigurationError

SERVER_ACCOUNT = "pgserver"  # Postgres refuses to run as root; the wheel's own name for it


def server_account() -> str | None:
    """Name the account for the embedded servers, made if needed; None: the present one.

    Raises:
        ConfigurationError: we are root and the account cannot be made.
    """
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(SERVER_ACCOUNT)
    except KeyError:
        command = ["useradd", "--system", "--shell", "/usr/sbin/nologin", SERVER_ACCOUNT]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise ConfigurationError(
                "Postgres does not run as root. Start firstread as another user, or make one for "
                f"it: useradd --system {SERVER_ACCOUNT}"
            ) from error
    return SERVER_ACCOUNT


def own_folder(folder: Path, account: str | None) -> None:
    """Make a folder that this account alone can look into."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if account is not None:
        entry = pwd.getpwnam(account)
        os.chown(folder, entry.pw_uid, entry.pw_gid)
    folder.chmod(0o700)


def own_file(path: Path, account: str | None) -> None:
    """Give a file to the account, readable by nobody else."""
    path.chmod(0o600)
    if account is not None:
        entry = pwd.getpwnam(account)
        os.chown(path, entry.pw_uid, entry.pw_gid)


def let_pass(folder: Path, say: Callable[[str], None]) -> None:
    """Let the server's account through to a folder below root's own.

    Only the right to pass is added, never to list or read, and only where it is missing. The
    wheel's own way would make every folder on the path readable to every user.
    """
    for parent in (folder, *folder.parents):
        mode = parent.stat().st_mode
        if not mode & stat.S_IXOTH:
            parent.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
            say(f"{parent} now lets other accounts pass through it (not list or read it)")


def make_readable(tree: Path) -> None:
    """Let the server's account run programs that were installed under a strict umask."""
    for path in (tree, *tree.rglob("*")):
        if path.is_symlink():
            continue
        mode = stat.S_IMODE(path.stat().st_mode)
        wanted = mode | ((mode & 0o500) >> 6)  # others may read and run what the owner may
        if wanted != mode:
            path.chmod(wanted)
