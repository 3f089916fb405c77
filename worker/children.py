"""A spawned process that does one job at a time over a pipe of its own.

Nothing is shared between children, no lock and no queue: one that hangs, crashes or is killed
from outside, at any instant, takes along its own job and nothing else. A new program, never a
fork: the parent may hold threads and a GPU. Nor ``multiprocessing``: its spawned processes import
the parent's main module again, and with it whatever that imports, torch for one.
"""

import importlib
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from common.errors import FirstreadError

Answer = TypeVar("Answer")

LIVE = "import sys; from worker.children import live; live(int(sys.argv[1]))"
START_DEADLINE_S = 120.0
ONE_THREAD = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
)


class ChildError(FirstreadError):
    """A child process did not answer; which subclass says why."""


class ChildDeadlineError(ChildError):
    """The job outlived its deadline; the child was killed."""


class ChildDeathError(ChildError):
    """The child died over its job."""


class ChildMemoryError(ChildError):
    """The job needs more memory than the child may use."""


class ChildStartError(ChildError):
    """The child never got ready: no job is to blame."""


@dataclass(frozen=True)
class Upbringing:
    """What a child does before its first job.

    modules: Imported at once, so that the first job does not pay for it.
    memory_bytes: Limit of the address space; None for no limit.
    """

    modules: Sequence[str] = ()
    memory_bytes: int | None = None
    one_thread: bool = True


class Child:
    """One process and its pipe; started when first needed, and again after it died.

    Not thread-safe: one thread at a time.
    """

    def __init__(self, name: str, upbringing: Upbringing) -> None:
        self._name = name
        self._upbringing = upbringing
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._ready = False

    @property
    def pid(self) -> int | None:
        """The process, if there is one."""
        return self._process.pid if self._process else None

    def is_ready(self) -> bool:
        """Say whether the child waits for a job, without waiting for it."""
        pipe = self._pipe
        return pipe is not None and (self._ready or pipe.poll(0))

    def start(self) -> None:
        """Start the process without waiting for it. Safe to repeat."""
        if self._process is not None and self._process.poll() is None:
            return
        self.kill()
        ours, theirs = socket.socketpair()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        if self._upbringing.one_thread:
            environment |= dict.fromkeys(ONE_THREAD, "1")
        with theirs:  # closed here, so that the pipe ends when the child does
            self._process = subprocess.Popen(
                [sys.executable, "-c", LIVE, str(theirs.fileno())],
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._pipe, self._ready = Connection(ours.detach()), False
        with suppress(OSError):  # dead already: whoever asks for it first will see
            self._pipe.send(self._upbringing)

    def run(self, job: Callable[..., Answer], *args: object, deadline_s: float) -> Answer:
        """Do one job in the child and give what it returns, or raise what it raises.

        Args:
            job: A function of a module, with arguments that can be pickled.
            deadline_s: Time for the job; the child's own start is not counted.

        Raises:
            ChildDeadlineError, ChildDeathError, ChildMemoryError: the job's doing.
            ChildStartError: not the job's doing.
        """
        pipe = self._wait_until_ready()
        try:
            pipe.send((job, args, deadline_s))
            kind: str = "late"
            value: Any = None
            if pipe.poll(deadline_s):
                kind, value = pipe.recv()
        except (EOFError, OSError) as error:
            raise ChildDeathError(f"the process died: {self._bury()}") from error
        except BaseException:  # what was sent stays unread in the pipe: this child is spoilt
            self.kill()
            raise
        if kind == "done":
            return value
        if kind == "raised":
            raise value
        self.kill()
        if kind == "memory":
            limit = self._upbringing.memory_bytes
            raise ChildMemoryError(f"more memory needed than the {limit} bytes allowed")
        raise ChildDeadlineError(f"no result within {deadline_s:g} s")

    def interrupt(self) -> None:
        """Kill the process under its job; ``run`` then raises. The one call for other threads."""
        process = self._process
        if process is not None:
            process.kill()

    def kill(self) -> None:
        """End the process at once. Safe to repeat."""
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process, self._pipe, self._ready = None, None, False

    def _wait_until_ready(self) -> Connection:
        self.start()
        pipe = self._pipe
        if pipe is None:
            raise ChildStartError("no pipe")
        if not self._ready:
            try:
                if not pipe.poll(START_DEADLINE_S):
                    raise EOFError
                pipe.recv()
            except (EOFError, OSError) as error:
                raise ChildStartError(f"{self._name} did not start: {self._bury()}") from error
            self._ready = True
        return pipe

    def _bury(self) -> str:
        """Say how the process ended, and forget it."""
        code = None
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                code = self._process.wait(1.0)
        self.kill()
        if code is None:
            return "killed, for it had closed its pipe"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def live(descriptor: int) -> None:
    """Be a child: do jobs until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair
    pipe = Connection(descriptor)
    upbringing: Upbringing = pipe.recv()
    if upbringing.memory_bytes is not None:
        limit = upbringing.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for module in upbringing.modules:
        importlib.import_module(module)
    pipe.send("ready")
    with suppress(EOFError, OSError):
        while True:
            job, args, deadline_s = pipe.recv()
            # A hang in native code outlives even a parent that was killed: this ends it.
            signal.setitimer(signal.ITIMER_REAL, deadline_s + 5)
            answer = _do(job, args)
            signal.setitimer(signal.ITIMER_REAL, 0)
            pipe.send(answer)


def _do(job: Callable[..., object], args: Sequence[object]) -> tuple[str, Any]:
    try:
        return "done", job(*args)
    except MemoryError:
        return "memory", None
    except Exception as error:  # noqa: BLE001 - the boundary: it is raised again in the parent
        try:
            pickle.loads(pickle.dumps(error))  # noqa: S301 - our own, made a moment ago
        except Exception:  # noqa: BLE001 - an exception of some library that cannot travel
            return "raised", RuntimeError(f"{type(error).__name__}: {error}")
        return "raised", error
