"""Several listener processes on one port, as `firstread listen` runs them."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from common.settings import Settings
from common.tables import Instance
from tests.integration.listener.conftest import free_port, radiograph, send
from tests.integration.listener.test_process import serving


def listeners(parent: int) -> set[int]:
    """Find the listener processes that a process has started."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return {pid for pid in map(int, children) if b"spawn_main" in command_of(pid)}


def command_of(pid: int) -> bytes:
    """Give a process' command line; empty if it has gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


def sockets_on(port: int) -> int:
    """Count the sockets that listen on a port."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    return sum(one[1].endswith(f":{port:04X}") and one[3] == "0A" for one in fields)


def wait_until(so: Callable[[], bool]) -> None:
    """Wait at most half a minute."""
    deadline = time.monotonic() + 30
    while not so():
        assert time.monotonic() < deadline, "it has not come true"
        time.sleep(0.05)


def test_a_listener_process_that_dies_is_replaced_and_sigterm_ends_all(
    settings: Settings, sessions: sessionmaker[Session]
) -> None:
    served = settings.model_copy(update={"dicom_port": free_port(), "archive_reserve_bytes": 0})
    with serving(served, FIRSTREAD_DICOM_PROCESSES="2") as parent:
        wait_until(lambda: sockets_on(served.dicom_port) == 2)
        first = listeners(parent.pid)
        assert len(first) == 2
        assert [send(served, radiograph()) for _ in range(6)] == [[0]] * 6
        killed = min(first)
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: len(listeners(parent.pid) - first) == 1)
        wait_until(lambda: sockets_on(served.dicom_port) == 2)
        second = listeners(parent.pid)
        assert len(second) == 2
        assert killed not in second
        assert [send(served, radiograph()) for _ in range(6)] == [[0]] * 6
        parent.send_signal(signal.SIGTERM)
        parent.communicate(timeout=30)
        assert parent.returncode == 0
        assert not any(map(command_of, second))
    with sessions() as session:
        assert session.execute(select(func.count()).select_from(Instance)).scalar_one() == 12
