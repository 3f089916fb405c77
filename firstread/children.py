"""Child processes of the stack: started in groups of their own, bounded in log and in dying."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

LOG_BYTES = 10_000_000  # of each child, twice: the current file and the one before
WRAPPER = Path(__file__).with_name("die_with_parent.py")


@dataclass
class Child:
    """One program that the stack keeps running.

    stop_signal: what asks it to end cleanly.
    death_signal: what the kernel sends it if the stack itself dies.
    stop_s: how long it may take to end before it is killed.
    """

    name: str
    command: Sequence[str]
    log_path: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    user: str | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGTERM
    stop_s: float = 10
    process: subprocess.Popen[bytes] | None = None
    started_at_s: float = 0  # monotonic
    log_start: int = 0  # where this run's lines begin in the log

    def start(self) -> None:
        """Start the program. It must be called from the main thread: see ``die_with_parent``."""
        self.log_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        wrapped = [
            sys.executable,
            "-I",
            "-S",
            str(WRAPPER),
            str(os.getpid()),
            str(int(self.death_signal)),
            self.user or "-",
            *self.command,
        ]
        with open(self.log_path, "ab", opener=_private) as log:
            self.log_start = log.tell()
            self.process = subprocess.Popen(
                wrapped,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **self.environment},
                process_group=0,  # Ctrl-C on the terminal reaches the stack alone
                umask=0o077,
            )
        self.started_at_s = time.monotonic()

    @property
    def running(self) -> bool:
        """Say whether the program runs now."""
        return self.process is not None and self.process.poll() is None

    @property
    def exit_status(self) -> int | None:
        """Give the status it ended with; negative: the signal that ended it."""
        return self.process.poll() if self.process else None

    def ask_to_stop(self) -> None:
        """Ask it to end cleanly."""
        if self.process is not None and self.running:
            self.process.send_signal(self.stop_signal)

    def stop(self) -> bool:
        """Wait for its end and clear what is left of its group. True if it ended by itself."""
        if self.process is None:
            return True
        try:
            self.process.wait(self.stop_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        self.kill()
        return True

    def kill(self) -> None:
        """Kill the program and every process of its group."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def bound_log(self) -> None:
        """Move a log that has grown too large aside; the program keeps writing to the same file."""
        with contextlib.suppress(FileNotFoundError):
            if self.log_path.stat().st_size > LOG_BYTES:
                shutil.copyfile(self.log_path, self.log_path.with_suffix(".log.1"))
                os.truncate(self.log_path, 0)

    def log_since_start(self) -> str:
        """Give what this run has logged so far."""
        with self.log_path.open("rb") as log:
            log.seek(self.log_start)
            return log.read(1_000_000).decode(errors="replace")

    def last_lines(self, count: int = 12) -> str:
        """Give the end of its log."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(max(0, self.log_path.stat().st_size - 16_384))
                return "\n".join(log.read().decode(errors="replace").splitlines()[-count:])
        except FileNotFoundError:
            return ""


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def remember(path: Path, children: Iterable[Child]) -> None:
    """Write down who runs, so that the next start finds what a crash left behind."""
    running = [child.process.pid for child in children if child.process and child.running]
    records = []
    for pid in running:
        with contextlib.suppress(psutil.NoSuchProcess):
            records.append({"pid": pid, "created": psutil.Process(pid).create_time()})
    replacement = path.with_suffix(".new")
    replacement.write_text(json.dumps(records))
    replacement.replace(path)


def stop_leftovers(path: Path, timeout_s: float = 30) -> int:
    """End what an earlier stack of this folder left running. Returns how many there were.

    A process counts only if its start time matches too: numbers are used again after a reboot.
    """
    try:
        records = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return 0
    found = []
    for record in records:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(record["pid"])
            if abs(process.create_time() - record["created"]) < 1:
                found.append(process)
                is_postgres = process.name() == "postgres"
                process.send_signal(signal.SIGINT if is_postgres else signal.SIGTERM)
    _, alive = psutil.wait_procs(found, timeout=timeout_s)
    for process in alive:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=5)
    path.unlink(missing_ok=True)
    return len(found)
