"""One real process of a fault case: in a session of its own, killed for certain, started again."""

import contextlib
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from tests.conftest import REPOSITORY
from tests.waiting import eventually


class Process:
    """A command that can be started again and again; its output goes to one log.

    faults: how often each signal was really delivered, by its name.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        *,
        user: str | None = None,
        prefix: Sequence[str] = (),
        ready_word: str = "",
    ) -> None:
        """Describe it.

        Args:
            name: What tables call it.
            command: Program and arguments.
            log: Where standard output and error go, appended.
            environment: Variables beside this process's own.
            user: The account that it runs under; root only.
            prefix: Put before the command, as ``ip netns exec NAME``; it must exec, so that the
                process is the command's own.
            ready_word: Stands in the log once it serves; "" if nothing says so.
        """
        self.name = name
        self.command = command
        self.log = log
        self.environment = dict(environment or {})
        self.user = user
        self.prefix = prefix
        self.ready_word = ready_word
        self.faults: Counter[str] = Counter()
        self.starts = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int:
        """Give the running process's number."""
        assert self.process is not None
        return self.process.pid

    @property
    def running(self) -> bool:
        """Say whether it runs now."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it; ``wait_ready`` says when it serves."""
        assert not self.running, f"{self.name} runs already"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self.process = subprocess.Popen(
                [*self.prefix, *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/" if self.user else REPOSITORY,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **self.environment},
                user=self.user,
                group=self.user,
                extra_groups=[] if self.user else None,
                start_new_session=True,
            )
        self.starts += 1

    def is_ready(self) -> bool:
        """Say whether this run has told its log that it serves."""
        assert self.running, f"{self.name} ended by itself:\n{self.told()[-3000:]}"
        return self.ready_word in self.told()

    def wait_ready(self, within_s: float = 60) -> None:
        """Wait until it serves; an end before that is a failure of the case."""
        assert eventually(self.is_ready, within_s, 0.02), f"{self.name}:\n{self.told()[-3000:]}"

    def told(self) -> str:
        """Give what the present run has written."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def kill(self) -> None:
        """SIGKILL it, and see that this is what it died of."""
        assert self.process is not None
        assert self.running, f"{self.name} was already gone:\n{self.told()[-3000:]}"
        children = psutil.Process(self.pid).children(recursive=True)
        self.process.kill()
        assert self.process.wait(120) == -signal.SIGKILL
        for child in children:  # where it had been suspended, they could not see its death
            with contextlib.suppress(psutil.NoSuchProcess):
                child.resume()
        self.faults[f"SIGKILL of {self.name}"] += 1

    def suspend(self) -> None:
        """SIGSTOP it and all of its children, and see that it stands still."""
        for process in self._family():
            process.suspend()
        assert eventually(self._stands_still, 10)
        self.faults[f"SIGSTOP of {self.name}"] += 1

    def resume(self) -> None:
        """SIGCONT what ``suspend`` stopped."""
        for process in self._family():
            process.resume()

    def terminate(self, within_s: float = 180) -> int:
        """SIGTERM it and wait for its end. Returns the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(within_s)

    def clear(self) -> None:
        """End it and whatever it has left in its session; part of cleaning up."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(120)

    def _family(self) -> list[psutil.Process]:
        parent = psutil.Process(self.pid)
        return [parent, *parent.children(recursive=True)]

    def _stands_still(self) -> bool:
        return all(process.status() == psutil.STATUS_STOPPED for process in self._family())
