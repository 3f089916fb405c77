"""A connection read through one bounded buffer, by the direct path and by pynetdicom alike."""

import math
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from mmap import mmap
from typing import cast

from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket

_BUFFER_BYTES, _WIDE_BYTES = 1 << 17, 1 << 19
TURN_S = 0.1  # a read without TLS gives way after so long without a byte


class ClosedError(Exception):
    """The connection ended, or nothing came on it for the time allowed."""


class BufferedSocket(AssociationSocket):
    """A socket whose bytes can be looked at before they are read; it acknowledges at once.

    DCMTK leaves Nagle's algorithm on unless told otherwise: without quick acknowledgements it
    stalls for 40 ms per object.
    """

    def __init__(self, association: Association, client: socket.socket) -> None:
        super().__init__(association, client_socket=client)
        self._silence_s = client.gettimeout() or math.inf
        if not isinstance(client, ssl.SSLSocket):
            _let_the_system_wait(client)
        self._buffer: bytearray | mmap = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0  # of what was received and not yet read
        self.deadline: float | None = None  # monotonic; nothing more is read after it
        self.pace: Callable[[int], float] | None = None  # waits after so many bytes; gives seconds

    @property
    def ready(self) -> bool:
        """Say whether something can be read, from the buffer or the network."""
        return self._start < self._end or super().ready

    def wait(self, timeout_s: float) -> bool:
        """Wait until something can be read, ``TURN_S`` or not at all; False if nothing came."""
        if self._start < self._end:
            return True
        connection = self.socket
        if connection is None:
            return False
        # TLS decrypts whole records: what one read left of it shows no more on the socket.
        if isinstance(connection, ssl.SSLSocket):
            if connection.pending():
                return True
        elif timeout_s:
            return self._receive()
        try:
            readable, _, _ = select.select([connection], [], [], timeout_s)
        except (OSError, ValueError) as error:
            raise ClosedError("closed") from error
        return bool(readable)

    def peek(self, count: int) -> memoryview:
        """Give the next bytes and leave them there; at most the buffer's size.

        Raises:
            ClosedError: the connection ended before there were so many.
        """
        if count > len(self._buffer) - self._start:
            self._compact()
        while self._end - self._start < count:
            self._fill()
        return self._view[self._start : self._start + count]

    def skip(self, count: int) -> None:
        """Pass over bytes that were peeked at."""
        self._start += count

    def read(self, count: int) -> bytes:
        """Give exactly so many bytes, few of them.

        Raises:
            ClosedError: the connection ended before.
        """
        value = bytes(self.peek(count))
        self._start += count
        return value

    def unread(self, value: bytes) -> None:
        """Put back bytes that were read last."""
        self._start -= len(value)
        self._view[self._start : self._start + len(value)] = value

    def read_some(self, at_most: int) -> memoryview:
        """Give what there is, at least one byte; valid until the next call.

        Raises:
            ClosedError: the connection ended.
        """
        if self._start == self._end:
            self._fill()
        some = self._view[self._start : min(self._end, self._start + at_most)]
        self._start += len(some)
        return some

    def widen(self) -> None:
        """Read in larger pieces from now on, as who sends large objects is worth. Safe to repeat.

        Each piece waits thrice for the interpreter: at the socket, the hash and the file.
        """
        if len(self._buffer) == _WIDE_BYTES:
            return
        unread = self._view[self._start : self._end]
        self._buffer = mmap(-1, _WIDE_BYTES)  # given back to the system at the end, all of it
        self._view = memoryview(self._buffer)
        self._start, self._end = 0, len(unread)
        self._view[: self._end] = unread

    def let_go(self) -> None:
        """Give the buffer back, once nobody reads any more: pynetdicom keeps us for seconds."""
        self._buffer = bytearray()
        self._view = memoryview(self._buffer)
        self._start = self._end = 0

    def recv(self, nr_bytes: int) -> bytearray:
        """Read for pynetdicom: exactly so many bytes, or fewer if the peer has gone.

        Raises:
            OSError: nothing came for the time allowed.
        """
        data = bytearray()
        while len(data) < nr_bytes:
            try:
                data += self.read_some(nr_bytes - len(data))
            except ClosedError as error:
                if isinstance(error.__cause__, OSError):
                    raise error.__cause__ from None
                break
        return data

    def _shutdown_socket(self) -> None:
        """Say goodbye where there is TLS, so that the peer can tell an end from a cut; close.

        pynetdicom's own closes nothing if the peer was faster: then its shutdown has failed.
        """
        connection = self.socket
        if isinstance(connection, ssl.SSLSocket):
            with suppress(OSError, ValueError):
                connection.settimeout(0)  # the peer's own goodbye is not waited for
                connection.unwrap()
        super()._shutdown_socket()
        if connection is not None:
            connection.close()

    def _compact(self) -> None:
        """Move what is unread to the buffer's beginning."""
        unread = self._end - self._start
        self._view[:unread] = bytes(self._view[self._start : self._end])
        self._start, self._end = 0, unread

    def _fill(self) -> None:
        """Read something.

        Raises:
            ClosedError: the connection ended, or nothing came for the time allowed.
        """
        silent_until = time.monotonic() + self._silence_s
        while True:
            now = time.monotonic()
            if self.deadline is not None and now > self.deadline:
                raise ClosedError("slower than a sender may be")
            if now > silent_until:
                raise ClosedError("timed out") from TimeoutError("timed out")
            if self._receive():
                return

    def _receive(self) -> bool:
        """Read what there is. False if nothing came for a turn.

        Raises:
            ClosedError: the connection ended; with TLS also: nothing came for the time allowed.
        """
        connection = cast(socket.socket, self.socket)
        if connection is None:
            raise ClosedError("closed")
        if self._start == self._end:
            self._start = self._end = 0
        try:
            count = self._read_what_there_is(connection)
        except BlockingIOError:
            return False
        except OSError as error:  # a timeout is one
            raise ClosedError(str(error)) from error
        except ValueError as error:  # TLS, shut down by the other thread meanwhile
            raise ClosedError("closed") from error
        if count == 0:
            raise ClosedError("the peer has gone")
        self._end += count
        if self.pace is not None:
            waited_s = self.pace(count)
            if self.deadline is not None:
                self.deadline += waited_s
        return True

    def _read_what_there_is(self, connection: socket.socket) -> int:
        """Read, and acknowledge at once before waiting: a sender may wait for that itself."""
        room = self._view[self._end :]
        if len(self._buffer) == _WIDE_BYTES and not isinstance(connection, ssl.SSLSocket):
            with suppress(BlockingIOError):  # of a large object more is there nearly always
                return connection.recv_into(room, 0, socket.MSG_DONTWAIT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return connection.recv_into(room)


def _let_the_system_wait(client: socket.socket) -> None:
    """Have the system end waiting: Python's own timeouts ask it once more before each call.

    Each call gives the interpreter away, and has to wait for it afterwards.
    """
    silence_s = client.gettimeout()
    client.settimeout(None)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(TURN_S))
    if silence_s:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(silence_s))


def _timeval(seconds: float) -> bytes:
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
