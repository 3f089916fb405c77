"""A connection's bounds: what comes slowly, too late, never, or is never taken."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from pynetdicom import AE
from pynetdicom.association import Association

from dicom_listener.buffered_socket import TURN_S, BufferedSocket, ClosedError

SILENCE_S = 0.35


@pytest.fixture
def ends() -> Iterator[tuple[BufferedSocket, socket.socket]]:
    """Connect a listener's end with a sender's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = socket.create_connection(server.getsockname())
        client, _ = server.accept()
    client.settimeout(SILENCE_S)
    with sender, client:
        yield BufferedSocket(Association(AE(), "acceptor"), client), sender


def test_what_comes_piece_by_piece_is_read_whole_though_it_takes_longer_than_silence_may(
    ends: tuple[BufferedSocket, socket.socket],
) -> None:
    received, sender = ends

    def drip() -> None:
        for number in range(4):
            time.sleep(0.6 * SILENCE_S)
            sender.sendall(bytes([number]) * 3)

    dripping = threading.Thread(target=drip)
    dripping.start()
    assert received.read(12) == bytes([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    dripping.join()


@pytest.mark.parametrize("is_wide", [False, True])
def test_silence_ends_a_connection_after_the_time_allowed_and_not_before(
    ends: tuple[BufferedSocket, socket.socket], is_wide: bool
) -> None:
    received, sender = ends
    if is_wide:
        received.widen()
    sender.sendall(b"abc")
    assert received.read(2) == b"ab"
    began = time.monotonic()
    with pytest.raises(ClosedError, match="timed out"):
        received.read(5)
    assert time.monotonic() - began >= SILENCE_S
    with pytest.raises(TimeoutError):  # as pynetdicom wants to hear it
        received.recv(5)


def test_a_deadline_ends_a_connection_that_drips(
    ends: tuple[BufferedSocket, socket.socket],
) -> None:
    received, sender = ends
    received.deadline = time.monotonic() + 0.5
    stopping = threading.Event()

    def drip() -> None:
        while not stopping.wait(0.05):
            sender.sendall(b"x")

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        with pytest.raises(ClosedError, match="slower"):
            received.read(1000)
    finally:
        stopping.set()
        dripping.join()


@pytest.mark.parametrize("is_wide", [False, True])
def test_who_waits_hears_that_nothing_came_and_loses_nothing_that_did(
    ends: tuple[BufferedSocket, socket.socket], is_wide: bool
) -> None:
    received, sender = ends
    if is_wide:
        received.widen()
    assert not received.wait(TURN_S)
    assert not received.wait(0.0)
    sender.sendall(b"abc")
    assert received.wait(TURN_S)
    assert bytes(received.peek(3)) == b"abc"
    assert received.wait(TURN_S)  # it is still there
    assert received.read(3) == b"abc"
    sender.close()
    with pytest.raises(ClosedError):
        received.wait(TURN_S)


def test_an_answer_that_nobody_takes_is_given_up_after_the_time_allowed(
    ends: tuple[BufferedSocket, socket.socket],
) -> None:
    received, _ = ends
    began = time.monotonic()
    received.send(bytes(64 << 20))  # far more than both ends' systems hold
    assert SILENCE_S <= time.monotonic() - began < 20 * SILENCE_S
    assert received.event_queue.get_nowait() == "Evt5"  # the connection that came
    assert received.event_queue.get_nowait() == "Evt17"  # and went


def test_more_than_the_buffer_holds_comes_through_in_order(
    ends: tuple[BufferedSocket, socket.socket],
) -> None:
    received, sender = ends
    content = bytes(range(256)) * 4096  # 1 MB
    sending = threading.Thread(target=sender.sendall, args=(content,))
    sending.start()
    got = bytearray()
    while len(got) < len(content):
        if len(got) > len(content) // 2:
            received.widen()
        got += received.read(1)
        if len(got) < len(content):
            got += received.read_some(len(content) - len(got))
    sending.join()
    assert got == content
