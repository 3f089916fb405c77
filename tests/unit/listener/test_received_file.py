"""Whatever its size and its fragments, what came is what lies on the disk and what was hashed."""

import errno
import fcntl
import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from dicom_listener import received_file
from dicom_listener.received_file import ReceivedFile

HEAD = bytes(range(256)) + b"head"
LARGE, BLOCK = received_file._LARGE_BYTES, received_file._BLOCK_BYTES
SIZES = (
    0, 1, 50_000, LARGE - len(HEAD) - 1, LARGE - len(HEAD), LARGE, LARGE + 4095, LARGE + BLOCK,
    LARGE + 3 * BLOCK + 17, 5_000_000,
)  # fmt: skip


def receive(path: Path, data: bytes, fragment: int) -> bytes:
    """Write data as it would come, and give the digest."""
    file = ReceivedFile(str(path), HEAD)
    try:
        for at in range(0, len(data), fragment):
            file.write(memoryview(data)[at : at + fragment])
        digest = file.finish()
        file.sync()
        return digest
    finally:
        file.close()


def check(path: Path, data: bytes, digest: bytes) -> None:
    """Hold the file and its digest to what was sent."""
    assert digest == hashlib.sha256(data).digest()
    assert path.read_bytes() == HEAD + data
    assert path.stat().st_mode & 0o777 == 0o600


def is_direct(descriptor: int) -> bool:
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT)


@pytest.fixture
def direct_writes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note how much each write past the cache took."""
    counts: list[int] = []
    write = os.write

    def noting(descriptor: int, data: memoryview) -> int:
        count = write(descriptor, data)
        if is_direct(descriptor):
            counts.append(count)
        return count

    monkeypatch.setattr(os, "write", noting)
    return counts


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fragment", [3001, 131_060, 1 << 20])
def test_any_size_in_any_fragments(tmp_path: Path, size: int, fragment: int) -> None:
    data = random.Random(size).randbytes(size)
    check(tmp_path / "a", data, receive(tmp_path / "a", data, fragment))


def test_a_large_object_goes_past_the_cache_in_whole_pages_and_a_small_one_does_not(
    tmp_path: Path, direct_writes: list[int]
) -> None:
    receive(tmp_path / "small", bytes(1 << 20), 131_060)
    assert not direct_writes
    receive(tmp_path / "large", bytes(5_000_000), 131_060)
    assert sum(direct_writes) > 5_000_000 - LARGE - 131_060 - 4096
    assert not any(count % 4096 for count in direct_writes)


def test_a_file_system_that_knows_no_way_past_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direct_writes: list[int]
) -> None:
    asked: list[int] = []
    real = fcntl.fcntl

    def refusing(descriptor: int, command: int, flags: int = 0) -> int:
        if command == fcntl.F_SETFL and flags & os.O_DIRECT:
            asked.append(flags)
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(descriptor, command, flags)

    monkeypatch.setattr(fcntl, "fcntl", refusing)
    data = random.Random(1).randbytes(4_000_000)
    check(tmp_path / "a", data, receive(tmp_path / "a", data, 131_060))
    assert len(asked) == 1  # once a file, not at each fragment
    assert not direct_writes


@pytest.mark.parametrize("takes", [0, 1000, 8192])
def test_a_disk_that_takes_less_than_a_block_past_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, takes: int
) -> None:
    write: Callable[[int, memoryview], int] = os.write
    refused: list[int] = []

    def part(descriptor: int, data: memoryview) -> int:
        if not is_direct(descriptor):
            return write(descriptor, data)
        refused.append(len(data))
        if not takes:
            raise OSError(errno.EINVAL, "Invalid argument")
        fcntl.fcntl(descriptor, fcntl.F_SETFL, 0)
        return write(descriptor, data[:takes])

    monkeypatch.setattr(os, "write", part)
    data = random.Random(2).randbytes(4_000_000)
    check(tmp_path / "a", data, receive(tmp_path / "a", data, 131_060))
    assert refused


def test_a_disk_that_is_full_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write: Callable[[int, memoryview], int] = os.write

    def full(descriptor: int, data: memoryview) -> int:
        if is_direct(descriptor):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        receive(tmp_path / "a", bytes(4_000_000), 131_060)


def test_a_file_that_was_closed_meanwhile_writes_into_no_other(tmp_path: Path) -> None:
    file = ReceivedFile(str(tmp_path / "a"), HEAD)
    file.write(b"some")
    file.close()
    file.close()
    other = ReceivedFile(str(tmp_path / "b"), b"")  # takes the number that is free
    for use in (lambda: file.write(b"more"), file.sync):
        with pytest.raises((OSError, ValueError), match="file descriptor"):
            use()
    other.finish()
    other.close()
    assert (tmp_path / "b").read_bytes() == b""
