"""Peers that come too often, too slowly or all at once: a short part of what make faults does."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from threading import Barrier

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session, sessionmaker

from common.lifecycle import claim, finish
from common.queue import make_celery
from common.reading import mark_read
from common.settings import Settings
from common.states import Outcome
from common.tables import Analysis, Instance, Study, WorklistItem
from tests.faults.crowds import ASSOCIATIONS, PROBES, Slow, same_uid_at_once, visit
from tests.faults.poison import Target, store
from tests.integration.listener.conftest import Listen, association, radiograph, send, send_one
from tests.ledger import add_model, result
from tests.raw_peer import ABORT, RELEASE_RQ, RawPeer, pdu, pdv, store_command
from tests.waiting import eventually
from worker.upkeep import Upkeep

Sessions = sessionmaker[Session]


@pytest.fixture
def target(settings: Settings, tmp_path: Path) -> Iterator[Target]:
    """Give a warm listener process."""
    with Target(settings, tmp_path) as target:
        with ThreadPoolExecutor(8) as threads:
            for sending in [threads.submit(target.send_neighbour) for _ in range(16)]:
                sending.result()
        target.mark()
        yield target


def test_probes_and_broken_associations_leave_nothing_behind(target: Target) -> None:
    visit(target, (*PROBES, *ASSOCIATIONS), 150, [])
    target.check_unharmed()


def test_slow_peers_are_shown_the_door_and_starve_nobody(target: Target) -> None:
    with Slow(target, 160) as slow:  # more than the listener serves at a time
        assert eventually(lambda: slow.most > 100, 10)
        for _ in range(5):
            target.send_neighbour()
        slow.wait()
    target.check_unharmed()


def test_one_uid_from_several_senders_at_once_is_one_object(
    target: Target, sessions: Sessions
) -> None:
    assert len(same_uid_at_once(target, 8, seed=1)) > 1
    with sessions() as session:
        assert session.execute(select(func.count()).select_from(Instance)).scalar_one() == len(
            target.acknowledged
        )
        assert session.execute(select(func.count()).select_from(Analysis)).scalar_one() == len(
            target.acknowledged
        )
    target.tally("one UID at once, short", sessions, {"rounds": 8}).check()


def test_a_study_over_several_associations_at_once_is_one_study(
    listen: Listen, sessions: Sessions
) -> None:
    settings = listen()
    first = radiograph()
    series = [
        [
            radiograph(
                StudyInstanceUID=first.StudyInstanceUID,
                SeriesInstanceUID=f"{first.StudyInstanceUID}.{number % 3}"[-64:].lstrip("."),
            )
            for _ in range(4)
        ]
        for number in range(8)
    ]
    all_open = Barrier(8)

    def send_series(images: list[Dataset]) -> list[int]:
        classes = {str(images[0].SOPClassUID): [str(ExplicitVRLittleEndian)]}
        with association(settings, classes) as opened:
            assert opened.is_established
            all_open.wait(60)  # each association stands before any of them has sent
            return [send_one(opened, image).Status for image in images]

    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(send_series, series))
    assert statuses == [[0] * 4] * 8
    with sessions() as session:
        assert session.execute(select(func.count()).select_from(Study)).scalar_one() == 1
        assert session.execute(select(func.count()).select_from(Instance)).scalar_one() == 32
        assert session.execute(select(func.count()).select_from(Analysis)).scalar_one() == 32


def test_an_association_aborted_after_some_images_keeps_what_it_acknowledged(
    target: Target, sessions: Sessions
) -> None:
    images = [target.new_object() for _ in range(12)]
    uids = [uid for _, uid, _ in images]

    def stored() -> list[str]:
        with sessions() as session:
            found = list(session.scalars(select(Instance.sop_instance_uid)))
        return [uid for uid in found if uid in uids]

    with RawPeer(target.port, target.ends_within_s) as peer:
        peer.associate(images[0][0])
        assert [store(peer, *image) for image in images[:7]] == [0] * 7
        sop_class, uid, data = images[7]
        peer.socket.sendall(pdu(pdv(store_command(sop_class, uid), command=True, last=True)))
        peer.socket.sendall(pdu(pdv(data[:500], command=False, last=False)))
        peer.socket.sendall(pdu(b"\0\0\0\0", kind=ABORT))
        assert peer.read_pdu() == (0, b""), "the listener did not hang up"
    target.check_unharmed()
    target.check_folders(sessions)
    assert sorted(stored()) == sorted(uids[:7])

    with RawPeer(target.port, target.ends_within_s) as peer:  # the sender comes again with all
        peer.associate(images[0][0])
        assert [store(peer, *image) for image in images] == [0] * 12
        peer.socket.sendall(pdu(b"\0\0\0\0", kind=RELEASE_RQ))
    assert sorted(stored()) == sorted(uids)
    with sessions() as session:
        waiting = session.scalars(
            select(Analysis.instance_id)
            .join(Instance, Instance.id == Analysis.instance_id)
            .where(Instance.sop_instance_uid.in_(uids))
        ).all()
    assert len(waiting) == len(set(waiting)) == 12, "each is analysed once"
    target.sent |= {uid: sha256(data).digest() for _, uid, data in images}
    target.acknowledged |= set(uids)
    target.check_unharmed()
    target.check_folders(sessions)
    target.tally("aborted after 7 of 12", sessions, {"association aborted": 1}).check()


def test_a_second_view_ten_minutes_later_reopens_the_study_even_when_read(
    listen: Listen, sessions: Sessions
) -> None:
    settings = listen()
    with sessions.begin() as session:
        model = add_model(session)
    first = radiograph(ViewPosition="PA")
    assert send(settings, first) == [0]

    def analyse(probability: float) -> None:
        with sessions.begin() as session:
            claimed = claim(session, worker="w", model_version_ids=[model], lease_s=60)
            assert claimed is not None
            assert finish(session, claimed, result(probability), settings)

    analyse(0.1)
    with sessions.begin() as session:
        for statement in (
            "UPDATE study SET first_received_at = first_received_at - interval '10 minutes',"
            " last_received_at = last_received_at - interval '10 minutes'",
            "UPDATE instance SET received_at = received_at - interval '10 minutes'",
        ):
            session.execute(text(statement))
    with sessions.kw["bind"].connect() as connection:
        upkeep = Upkeep(connection.engine, sessions, make_celery("memory://"), settings)
    assert upkeep.settle_studies() == 1
    with sessions.begin() as session:
        study = session.scalars(select(Study)).one()
        place = session.get_one(WorklistItem, study.id)
        assert (place.final, place.outcome) == (True, Outcome.NOT_FLAGGED)
        mark_read(session, study, "R", settings, instances_seen=1)
    second = radiograph(
        ViewPosition="AP",
        StudyInstanceUID=first.StudyInstanceUID,
        SeriesInstanceUID=first.SeriesInstanceUID,
    )
    assert send(settings, second) == [0]
    with sessions() as session:
        place = session.get_one(WorklistItem, study.id)
        assert (place.final, place.settled, place.outcome) == (False, False, Outcome.PENDING)
        assert (place.listed, place.new_image_since_read) == (True, True)
    analyse(0.9)
    with sessions() as session:
        place = session.get_one(WorklistItem, study.id)
        assert (place.outcome, place.images, place.final) == (Outcome.FLAGGED, 2, False)
    assert upkeep.settle_studies() == 0, "its last image has only just arrived"
