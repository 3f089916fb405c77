"""Peers that come too often, too slowly, at the same time, or leave too early."""

import contextlib
import hashlib
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event, Lock, Thread

from tests.faults.poison import PEERS, Target, Vitals, store
from tests.raw_peer import (
    ABORT,
    ASSOCIATE_AC,
    RawPeer,
    association_request,
    pdu,
    pdv,
    store_command,
)
from tests.waiting import eventually

RADIOGRAPH = "1.2.840.10008.5.1.4.1.1.1"
Visit = Callable[[Target], None]


def connect_and_close(target: Target) -> None:
    """Connect and hang up at once, as a load balancer's health check does."""
    socket.create_connection(("127.0.0.1", target.port), timeout=60).close()


def connect_and_reset(target: Target) -> None:
    """Connect and let the connection be reset."""
    with socket.create_connection(("127.0.0.1", target.port), timeout=60) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def associate_and_abort(target: Target) -> None:
    """Associate and abort."""
    with RawPeer(target.port) as peer:
        peer.associate(RADIOGRAPH)
        peer.socket.sendall(pdu(b"\0\0\0\0", kind=ABORT))


def associate_and_vanish(target: Target) -> None:
    """Associate and hang up without a word."""
    with RawPeer(target.port) as peer:
        peer.associate(RADIOGRAPH)


def ask_and_vanish(target: Target) -> None:
    """Ask for an association and do not wait for the answer."""
    with RawPeer(target.port) as peer:
        peer.socket.sendall(association_request(RADIOGRAPH, "FIRSTREAD"))


PROBES: tuple[Visit, ...] = (connect_and_close, connect_and_reset)
ASSOCIATIONS: tuple[Visit, ...] = (associate_and_abort, associate_and_vanish, ask_and_vanish)


def visit(target: Target, kinds: Sequence[Visit], count: int, marks: Sequence[int]) -> list[Vitals]:
    """Come so many times, each kind in turn; measure the listener after so many of them."""
    found: list[Vitals] = []
    done = 0
    with ThreadPoolExecutor(PEERS) as threads:
        for mark in [*marks, count]:
            for _ in threads.map(lambda at: kinds[at % len(kinds)](target), range(done, mark)):
                pass
            done = mark
            target.send_neighbour()
            if mark in marks:
                found.append(target.settled_vitals())
    return found


class Slow:
    """So many peers that say next to nothing; each kind says it in another way.

    connected: how many came through the door. most: how many were there at the same time.
    """

    def __init__(self, target: Target, count: int) -> None:
        self._target = target
        self._stop = Event()
        self._lock = Lock()
        self._here = self.connected = self.most = 0
        kinds = (self._silent, self._half, self._drip_request)
        # Few of those that do associate: a peer's places are for the site's limits to bound.
        chosen = [self._drip_object] * 8 + [kinds[at % len(kinds)] for at in range(count - 8)]
        self._threads = [Thread(target=self._last, args=(one,), daemon=True) for one in chosen]

    def __enter__(self) -> "Slow":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)

    def wait(self) -> None:
        """Wait until the listener has shown all of them the door."""
        within_s = 2.5 * self._target.ends_within_s
        gone = eventually(lambda: not any(one.is_alive() for one in self._threads), within_s)
        assert gone, "some are still served"
        assert self.connected == len(self._threads)

    def _last(self, kind: Callable[[socket.socket], None]) -> None:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self._target.port), timeout=120) as one,
        ):
            self._count(+1)
            try:
                kind(one)
            finally:
                self._count(-1)

    def _count(self, more: int) -> None:
        with self._lock:
            self._here += more
            self.connected += more > 0
            self.most = max(self.most, self._here)

    def _until_closed(self, connection: socket.socket, data: bytes) -> None:
        """Drip bytes until the listener hangs up."""
        connection.setblocking(False)
        at = 0
        while not self._stop.wait(0.2):
            with contextlib.suppress(BlockingIOError):
                if not connection.recv(1 << 16):
                    return
            connection.send(data[at : at + 1])
            at += 1

    def _silent(self, connection: socket.socket) -> None:
        self._until_closed(connection, b"")

    def _half(self, connection: socket.socket) -> None:
        connection.sendall(association_request(RADIOGRAPH, "FIRSTREAD")[:50])
        self._until_closed(connection, b"")

    def _drip_request(self, connection: socket.socket) -> None:
        self._until_closed(connection, association_request(RADIOGRAPH, "FIRSTREAD") + bytes(10_000))

    def _drip_object(self, connection: socket.socket) -> None:
        connection.sendall(association_request(RADIOGRAPH, "FIRSTREAD"))
        assert connection.recv(1 << 16)[:1] == bytes([ASSOCIATE_AC])
        command = pdu(pdv(store_command(RADIOGRAPH, "1.2.3"), command=True, last=True))
        connection.sendall(command)
        self._until_closed(connection, pdu(pdv(bytes(10_000), command=False, last=True)))


def send_at_once(
    target: Target, objects: Sequence[tuple[str, str, bytes]]
) -> tuple[list[int | None], bool]:
    """Send objects in the same instant, each on an association of its own.

    Returns:
        Their statuses, and whether there was a moment at which all of them had begun and none
        had been answered.
    """
    waiting = Barrier(len(objects))
    began, ended = list[float](), list[float]()

    def send(one: tuple[str, str, bytes]) -> int | None:
        sop_class, uid, data = one
        with RawPeer(target.port, target.ends_within_s) as peer:
            peer.associate(sop_class)
            waiting.wait(target.ends_within_s)
            began.append(time.monotonic())
            status = store(peer, sop_class, uid, data)
            ended.append(time.monotonic())
            return status

    with ThreadPoolExecutor(len(objects)) as threads:
        statuses = list(threads.map(send, objects))
    for (_, uid, data), status in zip(objects, statuses, strict=True):
        if status == 0:
            target.sent[uid] = hashlib.sha256(data).digest()
            target.acknowledged.add(uid)
    return statuses, max(began) < min(ended)


def same_uid_at_once(target: Target, rounds: int, seed: int) -> Counter[str]:
    """Let two or three senders send one UID at once: the same bytes, or others, in any order.

    A round in which one was answered before another began is played again and not counted.
    """
    chooser = random.Random(seed)
    seen = Counter[str]()
    for _ in range(10 * rounds):
        if seen.total() == rounds:
            return seen
        sop_class, uid, data = target.new_object()
        changed = data[:-2] + bytes([data[-2] ^ 0x55, data[-1]])
        kind = chooser.choice(["same", "other", "both"])
        contents = {
            "same": [data, data],
            "other": [data, changed],
            "both": [data, changed, data],
        }[kind]
        chooser.shuffle(contents)
        objects = [(sop_class, uid, content) for content in contents]
        statuses, at_once = send_at_once(target, objects)
        won = {content for content, status in zip(contents, statuses, strict=True) if status == 0}
        assert len(won) == 1, f"{statuses}: one content must win, all of its senders hear Success"
        for content, status in zip(contents, statuses, strict=True):
            assert status == (0x0000 if content in won else 0xC001), statuses
        target.sent[uid] = hashlib.sha256(won.pop()).digest()
        seen[f"one UID at once, {kind} bytes"] += at_once
    raise AssertionError(f"senders came one after the other: {seen}")
