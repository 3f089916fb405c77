"""One object on its way in: a private file that is written and hashed as the bytes arrive."""

import fcntl
import math
import os
import secrets
import struct
import time
from functools import cached_property, lru_cache
from itertools import count
from pathlib import Path

from common.archive import Archive
from common.errors import StorageUnavailableError
from common.logs import get_logger
from dicom_listener.received_file import ReceivedFile

IMPLEMENTATION_CLASS_UID = "2.25.165098811004870410477724109222706844623"
IMPLEMENTATION_VERSION_NAME = "FIRSTREAD_0_1"
_CHECK_SPACE_EVERY_BYTES, _CHECK_SPACE_EVERY_S = 1 << 20, 0.2
_HEAD_BYTES = 1 << 15

log = get_logger()


class Reception:
    """A Part 10 file being received. A disk that fails is remembered and told when asked.

    The association goes on in that case: the rest of the object is read and dropped, so that its
    sender gets a status and not a broken connection. Looks like the temporary file that pynetdicom
    expects: ``write``, ``close``, ``name``, ``file.flush``.
    """

    def __init__(self, name: str, room: "Room", announced: "Announced") -> None:
        self.name = name  # the file's path; it is gone once the archive has taken it
        self.announced = announced
        self.is_placed = False  # in the archive, under another name
        self.size_bytes = 0  # of the data set
        self.head = bytearray()  # the first bytes of it, where the header is
        self.began_s = time.monotonic()
        self._room = room
        self._failure: str | None = None
        self._file: ReceivedFile | None = None
        self._part10_bytes = len(announced.part10_head)
        try:
            room.require(0)
            self._file = ReceivedFile(name, announced.part10_head)
        except OSError as error:
            self._fail(error.strerror or "disk error")

    @property
    def file_bytes(self) -> int:
        """The size of the file: of the data set, and of what stands before it."""
        return self._part10_bytes + self.size_bytes

    @property
    def path(self) -> Path:
        """The same as a path."""
        return Path(self.name)

    @property
    def file(self) -> "Reception":
        """Itself: pynetdicom flushes the ``file`` of a temporary file."""
        return self

    def flush(self) -> None:
        """Do nothing after each fragment: none is held back."""

    def write(self, data: bytes | memoryview) -> int:
        """Append a fragment of the data set."""
        if self.size_bytes < _HEAD_BYTES:
            self.head += data[: _HEAD_BYTES - self.size_bytes]
        self.size_bytes += len(data)
        file = self._file
        if file is not None:
            try:
                self._room.require(len(data))
                file.write(data)
            except (OSError, ValueError) as error:
                self._fail(_reason(error))
        return len(data)

    def finish(self) -> bytes:
        """Write what is left of the file and give the SHA-256 of its data set.

        Raises:
            StorageUnavailableError: the disk refused, or is down to its reserve.
        """
        file = self._file
        try:
            if file is None:
                raise OSError(0, "closed")
            return file.finish()
        except (OSError, ValueError) as error:
            self._fail(_reason(error))
        raise StorageUnavailableError(f"archive: {self._failure}")

    def sync(self) -> None:
        """Force the finished file's bytes to the disk.

        Raises:
            StorageUnavailableError: the disk refused.
        """
        file = self._file
        try:
            if file is None:
                raise OSError(0, "closed")
            file.sync()
        except (OSError, ValueError) as error:
            raise StorageUnavailableError(f"archive: {_reason(error)}") from error

    def close(self) -> None:
        """Close the file, wherever it lies by now. Safe to repeat."""
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as error:
                self._failure = self._failure or error.strerror or "disk error"

    def discard(self) -> None:
        """Remove the file, unless the archive has taken it. Safe to repeat, never raises."""
        self.close()
        if self.is_placed:
            return
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:  # a disk gone read-only says so even of a name that is not there
            log.warning("incoming_not_removed", reason=error.strerror)

    def _fail(self, reason: str) -> None:
        self._failure = self._failure or reason
        self.discard()


class Room:
    """What is left on the archive's disk, asked anew after a megabyte or a fifth of a second.

    For any thread; a count that two of them spoil at once is put right by the next question.
    """

    def __init__(self, archive: Archive, reserve_bytes: int) -> None:
        self._archive = archive
        self._reserve_bytes = reserve_bytes
        self._free_bytes = self._since_bytes = 0
        self._asked_at_s = -math.inf

    def require(self, count: int) -> None:
        """Count bytes that come.

        Raises:
            OSError: with them less would be free than the reserve; or the disk does not say.
        """
        self._since_bytes += count
        is_stale = time.monotonic() - self._asked_at_s > _CHECK_SPACE_EVERY_S
        is_tight = self._free_bytes - self._since_bytes < self._reserve_bytes
        if is_stale or is_tight or self._since_bytes > _CHECK_SPACE_EVERY_BYTES:
            self._free_bytes, self._since_bytes = self._archive.free_bytes(), 0
            self._asked_at_s = time.monotonic()
            if self._free_bytes < self._reserve_bytes:
                raise OSError(0, "less free space than the reserve")


class Announced:
    """What the command and its presentation context say of the object."""

    def __init__(
        self,
        sop_class_uid: str,
        sop_instance_uid: str,
        context_class_uid: str,
        syntax: str,
        ae: str,
    ) -> None:
        self.sop_class_uid = sop_class_uid
        self.sop_instance_uid = sop_instance_uid
        self.context_class_uid = context_class_uid
        self.transfer_syntax_uid = syntax
        self.source_ae_title = ae

    @cached_property
    def part10_head(self) -> bytes:
        """Preamble and file meta information. Source: PS3.10 section 7.1."""
        elements = b"".join(
            (
                struct.pack("<HH2sHI", 2, 0x0001, b"OB", 0, 2) + b"\x00\x01",
                _element(0x0002, b"UI", self.sop_class_uid),
                _element(0x0003, b"UI", self.sop_instance_uid),
                _element(0x0010, b"UI", self.transfer_syntax_uid),
                _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
                _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
                _element(0x0016, b"AE", self.source_ae_title),
            )
        )
        length = struct.pack("<HH2sHI", 2, 0x0000, b"UL", 4, len(elements))
        return bytes(128) + b"DICM" + length + elements


class Spool:
    """This process's own folder of half-received objects, below the archive's ``incoming``.

    Several listeners, on several hosts too, may share an archive: each holds the lock beside its
    folder for as long as it lives, and at start removes the folders whose lock nobody holds. The
    lock is on a file open for writing: NFS shares no lock on a folder with other hosts.
    """

    def __init__(self, archive: Archive, reserve_bytes: int) -> None:
        """Clean up after the dead and take a folder.

        Raises:
            StorageUnavailableError: the archive cannot be written.
        """
        self._archive = archive
        self._room = Room(archive, reserve_bytes)
        self._numbers = count()
        try:
            self._remove_abandoned()
            self.folder = archive.incoming / f"{os.getpid()}-{secrets.token_hex(4)}"
            self._lock = _take_lock(self.folder)  # first: the folder is never seen without it
            self.folder.mkdir(mode=0o700)
        except OSError as error:
            raise StorageUnavailableError(f"archive: {error}") from error

    def receive(self, announced: Announced) -> Reception:
        """Start a file for one object. Never raises for the disk: ``finish`` does."""
        return Reception(f"{self.folder}/{next(self._numbers)}.dcm", self._room, announced)

    def close(self) -> None:
        """Give the folder back. Safe to repeat."""
        if self._lock is not None:
            try:
                _remove_folder(self.folder)
                _lock_file(self.folder).unlink(missing_ok=True)
            except OSError as error:  # the next listener to start cleans up
                log.warning("incoming_not_cleaned", reason=error.strerror)
            os.close(self._lock)
            self._lock = None

    def _remove_abandoned(self) -> None:
        for folder in sorted(self._archive.incoming.iterdir()):
            if not folder.is_dir() or folder.name.startswith("."):
                continue
            lock = _take_lock(folder)
            if lock is None:
                continue  # another listener lives there
            count = _remove_folder(folder)
            _lock_file(folder).unlink(missing_ok=True)
            os.close(lock)
            log.info("incoming_cleaned", abandoned=count)


def _lock_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _take_lock(folder: Path) -> int | None:
    """Take the folder's lock, which ends with this process; None if somebody else has it."""
    descriptor = os.open(_lock_file(folder), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_folder(folder: Path) -> int:
    """Remove a folder and count what was in it; 0 if another listener was faster."""
    try:
        files = list(folder.iterdir())
        for file in files:
            file.unlink(missing_ok=True)
        folder.rmdir()
    except FileNotFoundError:
        return 0
    return len(files)


def _reason(error: OSError | ValueError) -> str:
    """Say what the disk said; a ValueError is a file that an aborting association has closed."""
    return getattr(error, "strerror", None) or "closed"


@lru_cache(maxsize=256)  # of one association only its objects' own UIDs differ
def _element(element: int, vr: bytes, text: str) -> bytes:
    value = text.encode("ascii", "replace")
    if len(value) % 2:
        value += b"\x00" if vr == b"UI" else b" "
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value
