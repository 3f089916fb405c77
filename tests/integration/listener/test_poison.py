"""Poison at a real listener process: a short part of what make faults sends."""

from pathlib import Path

import pytest
from sqlalchemy.orm import Session, sessionmaker

from common.settings import Settings
from tests.faults.poison import Target, send_poisoned_objects, send_poisoned_streams
from tests.raw_peer import ABORT, RELEASE_RQ, RawPeer, association_request, pdu


@pytest.mark.parametrize(
    ("direct", "count"), [(True, 110), (False, 50)], ids=["direct", "pynetdicom"]
)
def test_poisoned_objects_and_streams_harm_neither_the_listener_nor_its_neighbours(
    settings: Settings,
    sessions: sessionmaker[Session],
    tmp_path: Path,
    direct: bool,
    count: int,
) -> None:
    with Target(settings, tmp_path, direct=direct) as target:
        send_poisoned_objects(target, 30, seed=0)
        target.mark()
        statuses = send_poisoned_objects(target, count, seed=1)
        assert statuses.total() == count
        assert len(statuses) >= 3, statuses
        ends = send_poisoned_streams(target, count, seed=2)
        assert ends.total() == count
        assert ends["hung up"] > 0
        target.check_unharmed()
        target.check_folders(sessions)
        target.tally("poison, short", sessions, {"mutated": 2 * count}).check()


@pytest.mark.parametrize(
    "stream",
    [
        pdu(b"\0\0\2\xee", kind=ABORT),
        pdu(b"\0\0\2\xee", kind=ABORT) * 2,
        pdu(b"nonsense", kind=0x2A),
        pdu(b"\0\0\0\0", kind=RELEASE_RQ) * 2,
    ],
    ids=["abort for no known reason", "twice", "nonsense", "released twice"],
)
def test_an_end_that_no_table_knows_ends_the_association_and_no_thread(
    settings: Settings, tmp_path: Path, stream: bytes
) -> None:
    with Target(settings, tmp_path) as target:
        target.send_neighbour()
        target.mark()
        sop_class, *_ = target.new_object()
        for _ in range(5):
            with RawPeer(target.port) as peer:
                peer.socket.sendall(association_request(sop_class, "FIRSTREAD") + stream)
            with RawPeer(target.port) as peer:
                peer.associate(sop_class)
                peer.socket.sendall(stream)
        target.send_neighbour()
        target.check_unharmed()
