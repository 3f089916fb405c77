"""A file that is written and hashed as its object arrives; large ones past the system's page cache.

What is stored once and read once has no use for memory that Postgres and the model would use. And
on a virtual machine that gives idle memory back to its host, each page that is new to the cache is
fetched from there first: up to 2 ms of CPU a megabyte, as much as all else that a megabyte costs.
Small objects, and the beginning of large ones, go through the cache: there the disk writes while
more is received.
"""

import errno
import fcntl
import hashlib
import os
from mmap import mmap
from threading import Lock

from common.archive import begin_sync

_BEGIN_SYNC_EVERY_BYTES = 1 << 18
_LARGE_BYTES = 5 << 18  # from here on a file is large
_BLOCK_BYTES = 1 << 19
_ALIGNED_BYTES = 1 << 12  # no disk's sector is longer
_CLOSED = -1  # no descriptor: whoever uses it hears so


class ReceivedFile:
    """A new file, private to this user, that is written from its beginning to its end.

    Another thread may close it, as an association ends, but not amid a write: the number of a
    descriptor that was closed may already be another object's.
    """

    def __init__(self, name: str, head: bytes) -> None:
        """Make the file, and take what stands in it before the object: that is not hashed.

        Raises:
            OSError: the disk refuses, or the name is taken.
        """
        self._head = head  # until it is written: with the first of the object
        self._size_bytes = 0  # of what was written, and of what still waits in the block
        self._on_its_way_bytes = 0  # to the disk
        self._hash = hashlib.sha256()
        self._can_go_direct = True
        self._block: mmap | None = None  # begins at a page, as the disk wants it
        self._waiting_bytes = 0  # in the block, neither written nor hashed
        self._lock = Lock()
        self._descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes of the object.

        Raises:
            OSError: the disk refuses.
            OSError, ValueError: the file was closed.
        """
        with self._lock:
            if self._block is None and self._size_bytes < _LARGE_BYTES:
                self._write_through_cache(data)
            else:
                self._write_large(memoryview(data))

    def finish(self) -> bytes:
        """Write what still waits and give the SHA-256 of the object. To be asked once.

        Raises:
            OSError: the disk refuses.
            OSError, ValueError: the file was closed.
        """
        with self._lock:
            if self._block is not None:
                waiting = memoryview(self._block)[: self._waiting_bytes]
                whole = len(waiting) // _ALIGNED_BYTES * _ALIGNED_BYTES
                self._write_block(waiting[:whole])
                self._set_direct(False)
                self._write_out(waiting[whole:])
                self._hash.update(waiting)
            elif self._head:
                self._write_through_cache(b"")
            self._begin_sync()
            return self._hash.digest()

    def sync(self) -> None:
        """Force what is written to the disk.

        Raises:
            OSError: the disk refuses.
            OSError, ValueError: the file was closed.
        """
        with self._lock:
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file, wherever it lies by now. Safe to repeat.

        Raises:
            OSError: the disk refuses.
        """
        with self._lock:
            descriptor, self._descriptor = self._descriptor, _CLOSED
            if descriptor != _CLOSED:
                os.close(descriptor)

    def _write_through_cache(self, data: bytes | memoryview) -> None:
        whole = b"".join((self._head, data)) if self._head else data
        self._head = b""
        self._write_out(whole)
        self._size_bytes += len(whole)
        if self._size_bytes - self._on_its_way_bytes >= _BEGIN_SYNC_EVERY_BYTES:
            self._begin_sync()
        self._hash.update(data)

    def _begin_sync(self) -> None:
        """Have the disk write while more is received, or read: ``sync`` then waits for less."""
        start, end = self._on_its_way_bytes, self._size_bytes
        begin_sync(self._descriptor, start, end - start)
        self._on_its_way_bytes = end

    def _write_large(self, left: memoryview) -> None:
        if self._block is None:
            to_boundary = -self._size_bytes % _ALIGNED_BYTES if self._can_go_direct else len(left)
            self._write_through_cache(left[:to_boundary])
            left = left[to_boundary:]
            if left:
                self._go_direct()
                self._write_large(left)
            return
        self._size_bytes += len(left)
        while left:
            at = self._waiting_bytes
            some = left[: _BLOCK_BYTES - at]
            self._block[at : at + len(some)] = some
            left = left[len(some) :]
            self._waiting_bytes = at + len(some)
            if self._waiting_bytes == _BLOCK_BYTES:
                whole = memoryview(self._block)
                self._write_block(whole)
                self._hash.update(whole)
                self._waiting_bytes = 0

    def _go_direct(self) -> None:
        try:
            self._set_direct(True)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._can_go_direct = False  # not on this file system
        else:
            self._begin_sync()
            self._block = mmap(-1, _BLOCK_BYTES)

    def _write_block(self, left: memoryview) -> None:
        """Write past the cache, or through it if this is not taken otherwise."""
        try:
            left = left[os.write(self._descriptor, left) :]
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        if left:  # longer sectors than any that we know; or a nearly full disk, which says so now
            self._set_direct(False)
            self._write_out(left)

    def _write_out(self, data: bytes | memoryview) -> None:
        left = memoryview(data)
        while left:  # a disk that is nearly full takes a part
            left = left[os.write(self._descriptor, left) :]

    def _set_direct(self, wanted: bool) -> None:
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL) & ~os.O_DIRECT
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags | (os.O_DIRECT if wanted else 0))
