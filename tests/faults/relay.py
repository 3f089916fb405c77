"""A TCP relay that delays, falls silent or cuts: python -m tests.faults.relay PORT HOST PORT

It does as it is told on standard input, a line each, and answers with what it has seen so far:

open       forwards (the state that it starts in)
late S     forwards every piece S seconds after it came
silent     forwards nothing, closes nothing, and keeps what comes: every connection is half-open
freeze     does that to the connections that there are, and forwards new ones
cut        resets every connection, and forwards new ones
seen       changes nothing
"""

import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from typing import NamedTuple

_PIECE_BYTES = 1 << 16
_PIECES = 64
_POLL_S = 0.005


class Pair:
    """One connection on either side, each read only as fast as the other takes it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.server = server
        self.other = {client: server, server: client}
        self.ended: set[socket.socket] = set()
        # By the end that they go to, with the time at which they came; b"" says that it is over.
        self.waiting: dict[socket.socket, deque[tuple[float, bytes]]] = {
            client: deque(),
            server: deque(),
        }

        self.is_frozen = False

    def to_read(self) -> list[socket.socket]:
        """Give the ends of which more may be taken."""
        return [
            end
            for end, other in self.other.items()
            if end not in self.ended and len(self.waiting[other]) < _PIECES
        ]

    def read(self, end: socket.socket) -> int:
        """Take what one end sent; give its size."""
        try:
            piece = end.recv(_PIECE_BYTES)
        except OSError:
            piece = b""
        if not piece:
            self.ended.add(end)
        self.waiting[self.other[end]].append((time.monotonic(), piece))
        return len(piece)

    def forward(self, came_before: float) -> int | None:
        """Pass on what came before this instant; give how many pieces, None if it is over."""
        pieces = 0
        for end, waiting in self.waiting.items():
            while waiting and waiting[0][0] <= came_before:
                _, piece = waiting.popleft()
                pieces += 1
                try:
                    if piece:
                        end.sendall(piece)
                except OSError:
                    piece = b""
                if not piece:
                    return None
        return pieces

    def close(self, *, rudely: bool = False) -> None:
        """Close both ends; rudely, with a reset that throws away what is under way."""
        for end in self.other:
            if rudely:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()


class Relay:
    """Forward connections from a port of ours to somebody else's, as the mode says."""

    def __init__(self, port: int, to: tuple[str, int] | str) -> None:
        """Listen on a port, any if it is 0. ``to``: host and port, or a Unix socket's path."""
        self._to = to
        self._door = socket.create_server(("", port), backlog=128)
        self.port = self._door.getsockname()[1]
        self._is_silent, self._delay_s = False, 0.0
        self._pairs: list[Pair] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._delayed = self._held_bytes = self._resets = 0

    def serve(self) -> None:
        """Forward until ``stop``; the body of a thread."""
        while not self._stopped.is_set():
            with self._lock:
                owners = {end: pair for pair in self._pairs for end in pair.to_read()}
            try:
                readable, _, _ = select.select([self._door, *owners], [], [], _POLL_S)
            except (OSError, ValueError):  # cut meanwhile
                continue
            with self._lock:
                for one in readable:
                    if one is self._door:
                        self._accept()
                    elif one.fileno() >= 0:
                        pair = owners[one]
                        size = pair.read(one)
                        self._held_bytes += size if self._is_silent or pair.is_frozen else 0
                if not self._is_silent:
                    self._forward()
        self._door.close()

    def tell(self, order: str) -> str:
        """Follow an order; give what was done so far, as ``Seen`` names it."""
        word, _, value = order.partition(" ")
        with self._lock:
            if word == "cut":
                self._resets += len(self._pairs)
                for pair in self._pairs:
                    pair.close(rudely=True)
                self._pairs.clear()
            if word == "freeze":
                for pair in self._pairs:
                    pair.is_frozen = True
            if word != "seen":
                self._is_silent, self._delay_s = word == "silent", float(value or 0)
            frozen = [pair for pair in self._pairs if pair.is_frozen]
            left = sum(pair.server in pair.ended for pair in frozen)
            counts = (len(frozen), left, self._delayed, self._held_bytes, self._resets)
        return " ".join(str(count) for count in counts)

    def stop(self) -> None:
        """Reset every connection and listen no more."""
        self._stopped.set()
        self.tell("cut")

    def _accept(self) -> None:
        client, _ = self._door.accept()
        try:
            if isinstance(self._to, str):
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._to)
            else:
                server = socket.create_connection(self._to, timeout=5)
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            client.close()
            return
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pairs.append(Pair(client, server))

    def _forward(self) -> None:
        for pair in [one for one in self._pairs if not one.is_frozen]:
            pieces = pair.forward(time.monotonic() - self._delay_s)
            if pieces is None:
                pair.close()
                self._pairs.remove(pair)
            elif self._delay_s:
                self._delayed += pieces


class Seen(NamedTuple):
    """What a relay has done to those who speak through it.

    frozen, left: connections that are frozen, and those of them that the far side has closed.
    delayed: pieces. held_bytes: that came to a silent relay. resets: connections.
    """

    frozen: int
    left: int
    delayed: int
    held_bytes: int
    resets: int


class RelayProcess:
    """A relay in a process of its own, on whichever host its command says."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.tell("seen")  # it answers once it listens

    def tell(self, order: str) -> Seen:
        """Give an order."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        return Seen(*map(int, self.process.stdout.readline().split()))

    def stop(self) -> None:
        """End it, and every connection with it."""
        self.process.kill()
        self.process.communicate()


def main() -> None:
    """Listen and forward until standard input ends."""
    relay = Relay(int(sys.argv[1]), (sys.argv[2], int(sys.argv[3])))
    threading.Thread(target=relay.serve, daemon=True).start()
    for order in sys.stdin:
        sys.stdout.write(relay.tell(order.strip()) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
