"""The archive: one folder, objects named by the hash of their content, synced before they count.

incoming/                 half-received objects; emptied at start
objects/ab/abcd….dcm      received objects, Part 10, the data set as sent
renditions/ab/abcd….png   what the page shows; made again at any time
"""

import ctypes
import errno
import os
import shutil
from pathlib import Path

from common.errors import StorageUnavailableError

# Of linux/fs.h and linux/fcntl.h
_SYNC_FILE_RANGE_WRITE, _RENAME_NOREPLACE, _AT_FDCWD = 2, 1, -100
_C_LIBRARY = ctypes.CDLL(None, use_errno=True)
_sync_file_range = getattr(_C_LIBRARY, "sync_file_range", None)
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_renameat2 = getattr(_C_LIBRARY, "renameat2", None)
if _renameat2 is not None:
    _renameat2.argtypes = (
        ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint,
    )  # fmt: skip


class Archive:
    """Write objects under names that no sender chooses, so that no UID becomes a path."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.incoming = root / "incoming"
        self._named_folders: set[str] = set()  # whose own names are on the disk

    def prepare(self) -> None:
        """Make the folders, private to this user. Safe to repeat.

        Raises:
            StorageUnavailableError: the folder cannot be made.
        """
        try:
            for folder in (self.root, self.incoming, self.root / "objects"):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_folder(self.root)
        except OSError as error:
            raise StorageUnavailableError(f"archive: {error}") from error

    def object_name(self, sha256: bytes) -> str:
        """Give an object's path below the root."""
        digest = sha256.hex()
        return f"objects/{digest[:2]}/{digest}.dcm"

    def rendition_name(self, sha256: bytes) -> str:
        """Give a rendition's path below the root."""
        return f"renditions/{sha256.hex()[:2]}/{sha256.hex()}.png"

    def path(self, name: str) -> Path:
        """Give the full path of a name that this class made.

        Raises:
            ValueError: the name leaves the archive.
        """
        path = self.root / name
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise ValueError(f"{name!r} lies outside the archive")
        return path

    def store(self, received: Path, sha256: bytes) -> bool:
        """Move a complete file from ``incoming`` to its final name and make both durable.

        The same content stored twice is one file. Safe to repeat after a crash at any point.

        Raises:
            StorageUnavailableError: the disk refused; the received file is left to the caller.
        """
        try:
            sync_file(received)
        except OSError as error:
            raise StorageUnavailableError(f"archive: {error.strerror}") from error
        return self.place(received, sha256)

    def place(self, synced: Path | str, sha256: bytes) -> bool:
        """Move a file that is synced already to its final name and make the name durable.

        Returns:
            False if the same content was there already: it stays, and the file where it was.

        Raises:
            StorageUnavailableError: the disk refused; the file is left to the caller.
        """
        final = f"{self.root}/{self.object_name(sha256)}"
        folder = final.rpartition("/")[0]
        try:
            if folder not in self._named_folders:
                # Another thread or host may have made the folder and not synced its name yet.
                Path(folder).mkdir(mode=0o700, exist_ok=True)
                sync_folder(Path(folder).parent)
            is_new = _rename_to_new(synced, final)
            sync_folder(folder)
        except OSError as error:
            self._named_folders.discard(folder)
            raise StorageUnavailableError(f"archive: {error.strerror}") from error
        self._named_folders.add(folder)
        return is_new

    def holds(self, sha256: bytes) -> bool:
        """Say whether an object is there.

        Raises:
            OSError: the disk does not say.
        """
        return _is_there(self.root / self.object_name(sha256))

    def free_bytes(self) -> int:
        """Measure the space left for objects."""
        return shutil.disk_usage(self.root).free


def _is_there(path: Path | str) -> bool:
    """Open a file to see whether it is there: NFS answers from memory what else is asked."""
    try:
        os.close(os.open(path, os.O_RDONLY))
    except FileNotFoundError:
        return False
    return True


def _rename_to_new(path: Path | str, name: str) -> bool:
    """Rename a file, unless the name is taken: in one step where that can be done. False if it is.

    Raises:
        OSError: the disk refuses.
    """
    if _renameat2 is not None:
        names = os.fsencode(path), os.fsencode(name)
        if _renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE) == 0:
            return True
        if ctypes.get_errno() == errno.EEXIST:
            return False
    # NFS does not know how; any other trouble is met again.
    if _is_there(name):
        return False
    os.rename(path, name)  # noqa: PTH104 - texts: this is done for each object
    return True


def begin_sync(descriptor: int, start: int, count: int) -> None:
    """Have the system begin to write a part of a file, so that less is left for ``fsync``.

    A hint: it promises nothing, seldom waits, and no error of the disk shows here.
    """
    if _sync_file_range is not None:
        _sync_file_range(descriptor, start, count, _SYNC_FILE_RANGE_WRITE)


def sync_file(path: Path) -> None:
    """Force a file's bytes to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path | str) -> None:
    """Force a folder's names to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
