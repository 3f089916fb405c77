"""The archive keeps what it is given, once, under names that no sender chooses."""

import ctypes
import errno
import hashlib
from pathlib import Path

import pytest

from common import archive as archive_module
from common.archive import Archive
from common.errors import StorageUnavailableError


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    archive = Archive(tmp_path / "archive")
    archive.prepare()
    return archive


def receive(archive: Archive, content: bytes, name: str = "part") -> tuple[Path, bytes]:
    path = archive.incoming / name
    path.write_bytes(content)
    return path, hashlib.sha256(content).digest()


def test_a_stored_object_is_found_under_its_hash_and_nowhere_else(archive: Archive) -> None:
    path, digest = receive(archive, b"object")
    assert archive.store(path, digest)
    name = archive.object_name(digest)
    assert archive.path(name).read_bytes() == b"object"
    assert list(archive.incoming.iterdir()) == []


def no_such_call(*_: object) -> int:
    ctypes.set_errno(errno.EINVAL)
    return -1


@pytest.mark.parametrize("call", [archive_module._renameat2, no_such_call, None])
def test_storing_the_same_content_again_is_harmless(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, call: object
) -> None:
    monkeypatch.setattr(archive_module, "_renameat2", call)
    placed = [archive.store(*receive(archive, b"object", str(number))) for number in range(3)]
    assert placed == [True, False, False]
    assert len(list((archive.root / "objects").rglob("*.dcm"))) == 1


def test_a_name_that_leaves_the_archive_is_refused(archive: Archive) -> None:
    with pytest.raises(ValueError, match="outside"):
        archive.path("../elsewhere")


def test_folders_are_private(archive: Archive) -> None:
    archive.store(*receive(archive, b"object"))
    for folder in (archive.root, archive.incoming, *archive.root.glob("objects/*")):
        assert folder.stat().st_mode & 0o077 == 0


def test_a_full_disk_is_an_error_that_may_be_retried_and_keeps_the_file(archive: Archive) -> None:
    path, digest = receive(archive, b"object")
    blocked = archive.root / "objects"
    blocked.rmdir()
    blocked.write_text("a file where the folder should be")
    with pytest.raises(StorageUnavailableError):
        archive.store(path, digest)
    assert path.exists()
    blocked.unlink()
    archive.prepare()
    archive.store(path, digest)
