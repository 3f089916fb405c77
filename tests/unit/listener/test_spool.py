"""The folders of half-received objects, with several listeners over one archive."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.archive import Archive
from dicom_listener.reception import Announced, Spool

ANNOUNCED = Announced("1.2.3", "1.2.3.4", "1.2.3", "1.2.840.10008.1.2.1", "SCANNER")


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    archive = Archive(tmp_path / "archive")
    archive.prepare()
    return archive


@pytest.fixture
def spool(archive: Archive) -> Iterator[Spool]:
    spool = Spool(archive, reserve_bytes=0)
    yield spool
    spool.close()


def test_a_listener_that_starts_leaves_what_another_is_receiving(
    archive: Archive, spool: Spool
) -> None:
    reception = spool.receive(ANNOUNCED)
    reception.write(b"half an object")
    other = Spool(archive, reserve_bytes=0)
    assert reception.path.exists()
    assert other.folder != spool.folder
    other.close()
    reception.write(b", and the rest")
    reception.finish()
    assert reception.path.read_bytes().endswith(b"half an object, and the rest")
    reception.discard()


def test_a_folder_is_held_by_a_file_open_for_writing(archive: Archive, spool: Spool) -> None:
    (lock,) = archive.incoming.glob("*.lock")
    assert lock.name == f"{spool.folder.name}.lock"
    # fcntl's locks are what NFS makes of flock: an exclusive one asks for a file open for writing.
    with lock.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_what_a_dead_listener_left_is_removed_and_so_is_its_lock(archive: Archive) -> None:
    dead = Spool(archive, reserve_bytes=0)
    left = dead.receive(ANNOUNCED)
    left.write(b"half an object")
    left.close()
    assert dead._lock is not None
    os.close(dead._lock)  # as the kernel does
    living = Spool(archive, reserve_bytes=0)
    names = {path.name for path in archive.incoming.iterdir()}
    assert names == {living.folder.name, f"{living.folder.name}.lock"}
    living.close()
    assert list(archive.incoming.iterdir()) == []
