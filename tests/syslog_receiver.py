"""A syslog server of the tests' own: TLS, TCP or UDP, octet counting, on the loopback."""

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

HEADER = re.compile(
    rb"<(?P<priority>\d{1,3})>1 (?P<at>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}Z) (?P<host>[!-~]+) "
    rb"(?P<application>[!-~]+) (?P<process>[!-~]+) (?P<kind>[!-~]+) - \xef\xbb\xbf(?P<body>.*)",
    re.DOTALL,
)


class Receiver:
    """What came in, frame by frame; connections beyond ``drop_after`` bytes are reset."""

    def __init__(self, context: ssl.SSLContext | None, *, datagrams: bool = False) -> None:
        kind = socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM
        self._door = socket.socket(socket.AF_INET, kind)
        self._door.bind(("127.0.0.1", 0))
        self._context = context
        self._datagrams = datagrams
        self.port = self._door.getsockname()[1]
        self.frames: list[bytes] = []
        self.refused = 0
        self.reset_next = 0  # connections to break in the middle
        self.resets = 0
        if not datagrams:
            self._door.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def messages(self, kind: str) -> list[bytes]:
        """Give the bodies of one kind of message; every frame has a proper header."""
        bodies = []
        for frame in list(self.frames):
            match = HEADER.fullmatch(frame)
            assert match, frame
            assert match["priority"] == b"85"
            if match["kind"].decode() == kind:
                bodies.append(match["body"])
        return bodies

    def close(self) -> None:
        """Stop."""
        with contextlib.suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        self._thread.join(5)

    def _serve(self) -> None:
        while True:
            try:
                if self._datagrams:
                    self.frames.append(self._door.recv(65535))
                    continue
                connection, _ = self._door.accept()
            except OSError:
                return
            with connection:
                try:
                    self._receive(connection)
                except (ssl.SSLError, ConnectionError):
                    self.refused += 1

    def _receive(self, connection: socket.socket) -> None:
        if self.reset_next:
            self.reset_next -= 1
            connection.recv(100)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.resets += 1
            return  # closing resets: whatever had arrived is gone
        if self._context is not None:
            connection = self._context.wrap_socket(connection, server_side=True)
        content = b""
        while part := connection.recv(65536):
            content += part
        if isinstance(connection, ssl.SSLSocket):
            with contextlib.suppress(OSError):
                connection.unwrap()
            connection.close()
        while content:
            length, _, rest = content.partition(b" ")
            frame, content = rest[: int(length)], rest[int(length) :]
            assert len(frame) == int(length)
            self.frames.append(frame)


@contextmanager
def receiving(
    context: ssl.SSLContext | None = None, *, datagrams: bool = False
) -> Iterator[Receiver]:
    """Run a receiver."""
    receiver = Receiver(context, datagrams=datagrams)
    try:
        yield receiver
    finally:
        receiver.close()
