"""Make complete objects durable on threads of their own, while their rows are being written.

The order that power loss must find is kept: the file's bytes, its name, the folder, and only then
the commit. The header is read and the statements run meanwhile, which wait for nothing of the disk.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from common.archive import Archive, sync_file, sync_folder
from common.errors import StorageUnavailableError


class Safekeeping:
    """Sync objects and put them under the names of their contents."""

    def __init__(self, archive: Archive, threads: int) -> None:
        """Take the archive, and how many objects may wait for the disk at a time."""
        self._archive = archive
        self._threads = ThreadPoolExecutor(threads, "safekeeping")
        self._synced_folders: set[Path] = set()

    def sync(self, received: Path) -> Future[None]:
        """Begin to make a file's bytes durable; it may still turn out to be no object."""
        return self._threads.submit(sync_file, received)

    def place(self, received: Path, sha256: bytes, syncing: Future[None]) -> Future[None]:
        """Begin to put it under its content's name, unless that content is there already.

        The result is None, or StorageUnavailableError.
        """
        return self._threads.submit(self._place, received, sha256, syncing)

    def close(self) -> None:
        """End the threads. Safe to repeat."""
        self._threads.shutdown()

    def _place(self, received: Path, sha256: bytes, syncing: Future[None]) -> None:
        final = self._archive.root / self._archive.object_name(sha256)
        try:
            syncing.result()
            if final.exists():
                sync_folder(final.parent)  # an earlier listener may have died before it did
            else:
                self._archive.place(received, sha256)
            if final.parent not in self._synced_folders:
                # Another thread or listener may have made the folder and not synced its name yet.
                sync_folder(final.parent.parent)
                self._synced_folders.add(final.parent)
        except OSError as error:
            raise StorageUnavailableError(f"archive: {error.strerror}") from error
