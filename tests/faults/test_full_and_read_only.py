"""Disks that fill and databases that refuse: senders are told to come back, then all is taken."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.sending import Sending
from tests.faults.stack import Stack
from tests.waiting import eventually

MEGABYTE = 1 << 20
Mount = Callable[[str], Path]
pytestmark = pytest.mark.faults


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Mount small file systems in memory; they are gone after the test."""
    assert os.geteuid() == 0, "these cases mount file systems: run make faults as root"
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="firstread-small-", dir="/tmp"))
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(folder)],
            check=True,
        )
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


def grow(folder: Path, size: str) -> None:
    """Give a small file system more room."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


def free_bytes(folder: Path) -> int:
    """Measure what is left."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def fill(folder: Path, ballast: Path) -> None:
    """Take all the space that is left."""
    with ballast.open("wb", 0) as file:
        while free_bytes(folder):
            with contextlib.suppress(OSError):
                file.write(bytes(4096))
    assert free_bytes(folder) == 0


def refusals(sending: Sending) -> int:
    """Count the answers 0xA700, in DCMTK's words."""
    return sending.answers["Refused: OutOfResources"]


def end(stack: Stack, sending: Sending, case: str) -> None:
    """Let all of it through, and count."""
    sending.finish()
    assert set(sending.answers) == {"Success", "Refused: OutOfResources"}, str(sending)
    assert sending.acknowledged == set(sending.objects.made), str(sending)
    stack.drain()
    stack.tally(case, sending).check()


def test_a_full_disk_refuses_for_now_and_takes_all_once_there_is_space(mount: Mount) -> None:
    folder = mount("3m")
    with Stack(archive=folder / "archive") as stack:
        sending = stack.send(at_least=600)
        assert eventually(lambda: refusals(sending) >= 20, 120)
        assert "No space left on device" in stack.listeners[0].told()
        assert eventually(lambda: free_bytes(folder) < 16384, 60, 0)
        assert len(sending.acknowledged) < 600
        stack.more_faults["0xA700 for ENOSPC of the archive"] += refusals(sending)
        grow(folder, "200m")
        end(stack, sending, "archive's disk full")


def test_the_reserve_refuses_before_the_disk_is_full(mount: Mount) -> None:
    folder = mount("12m")
    reserve = str(8 * MEGABYTE)
    with Stack(archive=folder / "archive", FIRSTREAD_ARCHIVE_RESERVE_BYTES=reserve) as stack:
        sending = stack.send(at_least=600)
        assert eventually(lambda: refusals(sending) >= 20, 120)
        assert "less free space than the reserve" in stack.listeners[0].told()
        assert 7 * MEGABYTE < free_bytes(folder) < 8 * MEGABYTE
        stack.more_faults["0xA700 for the archive's reserve"] += refusals(sending)
        grow(folder, "200m")
        end(stack, sending, "archive down to its reserve")


def test_a_read_only_database_refuses_for_now_and_loses_nothing() -> None:
    with Stack() as stack:
        sending = stack.send(at_least=500)
        assert eventually(lambda: len(sending.acknowledged) > 50, 60)
        stack.postgres.tell("ALTER SYSTEM SET default_transaction_read_only = on")
        stack.postgres.tell("SELECT pg_reload_conf()")
        assert eventually(lambda: refusals(sending) >= 20, 120)
        assert "read-only transaction" in stack.listeners[0].told()
        stack.more_faults["0xA700 for a read-only database"] += refusals(sending)
        stack.postgres.tell("ALTER SYSTEM RESET default_transaction_read_only")
        stack.postgres.tell("SELECT pg_reload_conf()")
        end(stack, sending, "database read-only")


def test_a_database_without_disk_refuses_for_now_and_loses_nothing(mount: Mount) -> None:
    folder = mount("400m")
    with Stack(postgres_folder=folder) as stack:
        sending = stack.send(at_least=500)
        assert eventually(lambda: len(sending.acknowledged) > 50, 60)
        ballast = folder / "ballast"
        fill(folder, ballast)
        assert eventually(lambda: refusals(sending) >= 20, 120)
        assert "No space left on device" in stack.postgres.told()
        stack.more_faults["0xA700 for ENOSPC of the database"] += refusals(sending)
        ballast.unlink()
        if not stack.postgres.running:
            stack.postgres.restart()
        stack.revive_all()
        end(stack, sending, "database's disk full")
