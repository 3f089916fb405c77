"""Run a whole stack as a user would: the command in a process of its own, on free ports."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from common.settings import Settings
from tests.conftest import REPOSITORY
from tests.waiting import eventually

UP = "Ctrl-C stops everything"


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


class RunningStack:
    """``firstread up`` on a home of its own; a context manager that leaves nothing behind.

    The home lies directly below /tmp: pytest's folders admit their owner alone, and as root the
    database runs under another account.
    """

    def __init__(self, **variables: str) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="firstread-e2e-", dir="/tmp"))
        self.dicom_port, self.dashboard_port = free_port(), free_port()
        self.variables = {
            "FIRSTREAD_HOME": str(self.home),
            "FIRSTREAD_DICOM_PORT": str(self.dicom_port),
            "FIRSTREAD_DASHBOARD_PORT": str(self.dashboard_port),
            "FIRSTREAD_SETTLE_AFTER_S": "3",
            "FIRSTREAD_ARCHIVE_RESERVE_BYTES": "0",
            **variables,
        }
        self.output = self.home / "output.txt"
        self.process: subprocess.Popen[bytes] | None = None
        self._times_up = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        for process in self.processes():
            process.kill()
        shutil.rmtree(self.home, ignore_errors=True)

    @property
    def environment(self) -> dict[str, str]:
        """The variables of every command on this stack."""
        return {**os.environ, **self.variables}

    @property
    def settings(self) -> Settings:
        """What the stack was told, for code that asks it questions."""
        return Settings.model_validate(
            {
                "home": self.home,
                "dicom_port": self.dicom_port,
                "dashboard_port": self.dashboard_port,
            }
        )

    def start(self, *arguments: str) -> Self:
        """Start a command that stays in the foreground; ``up`` if none is named."""
        self._times_up = self.told().count(UP)
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "firstread", *(arguments or ("up",))],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
                cwd=REPOSITORY,
            )
        return self

    def wait_up(self, timeout_s: float = 180) -> Self:
        """Wait until every service is ready."""
        process = self.process
        assert process is not None

        def is_up() -> bool:
            assert process.poll() is None, self.told()
            return self.told().count(UP) > self._times_up

        assert eventually(is_up, timeout_s), self.told()
        return self

    def told(self) -> str:
        """Give everything that the stack has told its user."""
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def kill(self) -> None:
        """End the stack's own process without a chance to clean up."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, number: signal.Signals = signal.SIGINT, timeout_s: float = 90) -> int | None:
        """Press Ctrl-C and wait for the end. Returns the exit status."""
        if self.process is None or self.process.poll() is not None:
            return self.process.returncode if self.process else None
        self.process.send_signal(number)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def run(self, *arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run another command against the stack."""
        return subprocess.run(
            [sys.executable, "-m", "firstread", *arguments],
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=REPOSITORY,
            timeout=timeout_s,
            check=False,
        )

    def processes(self) -> list[psutil.Process]:
        """Find every living process of this stack, by its variables or its arguments."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                mine = process.environ().get("FIRSTREAD_HOME") == str(self.home)
                if mine or any(str(self.home) in part for part in process.cmdline()):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def service(self, command: str) -> psutil.Process:
        """Find one service's own process: ``listen``, ``work``, ``beat``."""
        wanted = ["-m", "firstread", command]
        found = [one for one in self.processes() if one.cmdline()[1:4] == wanted]
        assert len(found) == 1, (command, [one.cmdline() for one in self.processes()])
        return found[0]
