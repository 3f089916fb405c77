"""Storage commitment: what is told to the peer is what lies on the disk, told until it is heard."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session, sessionmaker

from common.commitment_tables import CommitmentItem, CommitmentRequest, bar_commitments
from common.metrics import REGISTRY
from common.settings import Settings
from common.tables import Instance
from dicom_listener.commitment_request import MAX_ITEMS, ActionStatus
from dicom_listener.statuses import StoreStatus
from firstread.commitment_backlog import undelivered
from tests.commitment_peer import PUSH_MODEL, WELL_KNOWN, CommitmentPeer, request, wait_until
from tests.integration.listener.conftest import (
    free_port,
    radiograph,
    running_listener,
    send,
    send_one,
)
from tests.integration.listener.test_process import serving
from tests.raw_peer import RawPeer, action_command, pdu, pdv

# pynetdicom drops the socket of a call that was refused without closing it first.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

Reference = tuple[str, str]


@pytest.fixture
def peer() -> CommitmentPeer:
    """Make a device that may ask."""
    return CommitmentPeer(free_port())


@pytest.fixture
def permitted(settings: Settings, peer: CommitmentPeer, tmp_path: Path) -> Settings:
    """Give settings under which the device may ask, and is called again at once."""
    rules = tmp_path / "peers.toml"
    rules.write_text(
        f"""
        [[peer]]
        ae_title = "RAWPEER"
        addresses = ["127.0.0.1"]
        storage_commitment = true
        call_back = "RAWPEER@127.0.0.1:{peer.port}"

        [[peer]]
        ae_title = "{peer.ae_title}"
        addresses = ["127.0.0.1"]
        storage_commitment = true
        call_back = "{peer.ae_title}@127.0.0.1:{peer.port}"
        """
    )
    return settings.model_copy(
        update={
            "dicom_port": free_port(),
            "archive_reserve_bytes": 0,
            "dicom_peers_file": rules,
            "commitment_retry_s": 0.5,
        }
    )


@pytest.fixture
def listening(permitted: Settings) -> Iterator[Settings]:
    """Run a listener under those settings."""
    with running_listener(permitted):
        yield permitted


def store(settings: Settings, count: int = 1) -> list[Reference]:
    """Store objects; give their classes and UIDs."""
    datasets = [radiograph() for _ in range(count)]
    assert send(settings, *datasets) == [StoreStatus.SUCCESS] * count
    return [reference(dataset) for dataset in datasets]


def reference(dataset: Dataset) -> Reference:
    """Give class and UID of an object."""
    return str(dataset.SOPClassUID), str(dataset.SOPInstanceUID)


def ask(
    settings: Settings, peer: CommitmentPeer, items: list[Reference], uid: str | None = None
) -> str:
    """Ask and leave at once; give the Transaction UID."""
    with peer.associate(settings.dicom_port) as opened:
        status, uid = peer.ask(opened, items, uid)
        assert status == ActionStatus.SUCCESS
    return uid


def stored_path(sessions: sessionmaker[Session], settings: Settings, uid: str) -> Path:
    """Find an object's file."""
    with sessions() as session:
        name = session.scalars(select(Instance.path).where(Instance.sop_instance_uid == uid)).one()
    return settings.archive_path / name


def state_of(sessions: sessionmaker[Session], uid: str) -> tuple[str, int, str]:
    """Give a request's state, how often its peer was not reached, and why."""
    with sessions() as session:
        row = session.scalars(
            select(CommitmentRequest).where(CommitmentRequest.transaction_uid == uid)
        ).one()
        return row.state, row.failures, row.last_error


def lock_is_waited_for(sessions: sessionmaker[Session]) -> bool:
    """Say whether anybody waits for an advisory lock."""
    with sessions() as session:
        waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        return bool(session.scalar(waiting))


def test_the_outcome_comes_on_the_association_that_asked_while_it_stands(
    listening: Settings, peer: CommitmentPeer, sessions: sessionmaker[Session]
) -> None:
    here = store(listening, 2)
    with peer.associate(listening.dicom_port) as opened:
        status, uid = peer.ask(opened, here)
        assert status == ActionStatus.SUCCESS
        outcome = peer.outcome()
        assert opened.is_established
    assert (outcome.transaction_uid, outcome.event_type) == (uid, 1)
    assert outcome.committed == here
    assert not outcome.failed
    assert not outcome.called_back
    wait_until("delivered", 5, lambda: state_of(sessions, uid)[0] == "delivered")
    with sessions() as session:
        marked = session.scalars(
            select(CommitmentItem.sop_instance_uid)
            .where(CommitmentItem.succeeded.is_(True))
            .order_by(CommitmentItem.position)
        ).all()
    assert list(marked) == [sop_instance_uid for _, sop_instance_uid in here]


def test_a_peer_that_has_left_is_called_back_in_the_role_of_the_scp(
    listening: Settings, peer: CommitmentPeer
) -> None:
    here = store(listening)
    with peer.listening():
        uid = ask(listening, peer, here)
        outcome = peer.outcome()
    assert outcome.called_back
    assert (outcome.transaction_uid, outcome.committed) == (uid, here)
    assert outcome.calling_ae_title == listening.ae_title


def test_an_outcome_that_comes_between_objects_disturbs_none(
    listening: Settings, peer: CommitmentPeer, sessions: sessionmaker[Session]
) -> None:
    datasets = [radiograph() for _ in range(30)]
    sop_class_uid = str(datasets[0].SOPClassUID)
    with peer.associate(listening.dicom_port, classes=[sop_class_uid]) as opened:
        asked = 0
        for dataset in datasets:
            assert send_one(opened, dataset).Status == StoreStatus.SUCCESS
            status, _ = peer.ask(opened, [reference(dataset)])
            assert status == ActionStatus.SUCCESS
            asked += 1
        outcomes = [peer.outcome() for _ in range(asked)]
        assert opened.is_established
    assert sorted(outcome.committed[0] for outcome in outcomes) == sorted(
        reference(dataset) for dataset in datasets
    )
    assert not any(outcome.called_back for outcome in outcomes)
    with sessions() as session:
        assert session.scalar(select(func.count()).select_from(Instance)) == len(datasets)


def test_only_what_is_on_the_disk_as_it_came_is_committed(
    listening: Settings, peer: CommitmentPeer, sessions: sessionmaker[Session]
) -> None:
    good, vanished, changed, cut, misnamed = store(listening, 5)
    unknown = (good[0], str(generate_uid()))
    stored_path(sessions, listening, vanished[1]).unlink()
    for uid, harm in ((changed[1], -1), (cut[1], None)):
        path = stored_path(sessions, listening, uid)
        content = bytearray(path.read_bytes())
        if harm is None:
            del content[-10:]
        else:
            content[harm] ^= 1
        path.write_bytes(content)
    misnamed = ("1.2.840.10008.5.1.4.1.1.2", misnamed[1])
    with peer.listening():
        ask(listening, peer, [good, vanished, changed, cut, misnamed, unknown])
        outcome = peer.outcome()
    assert outcome.event_type == 2
    assert outcome.committed == [good]
    assert outcome.failed == {
        vanished[1]: 0x0112,
        changed[1]: 0x0110,
        cut[1]: 0x0110,
        misnamed[1]: 0x0119,
        unknown[1]: 0x0112,
    }


def test_what_retention_has_marked_is_not_committed_though_its_file_is_still_there(
    listening: Settings, peer: CommitmentPeer, sessions: sessionmaker[Session]
) -> None:
    here = store(listening)
    with sessions.begin() as session:
        bar_commitments(session)
        session.execute(update(Instance).values(deleted_at=func.clock_timestamp()))
        with peer.listening():
            uid = ask(listening, peer, here)
            wait_until("held up by who deletes", 10, lambda: lock_is_waited_for(sessions))
            assert state_of(sessions, uid)[0] == "pending"
            session.commit()
            assert peer.outcome().failed == {here[0][1]: 0x0112}
    assert stored_path(sessions, listening, here[0][1]).exists()


def test_a_peer_that_is_away_is_called_until_it_answers_success(
    listening: Settings, peer: CommitmentPeer, sessions: sessionmaker[Session]
) -> None:
    here = store(listening)
    uid = ask(listening, peer, here)
    wait_until("two failures", 20, lambda: state_of(sessions, uid)[1] >= 2)
    assert state_of(sessions, uid)[2] == "cannot be reached"
    with sessions() as session:
        (says,) = undelivered(session)
    assert says.startswith("MODALITY: 1 not delivered yet (last: cannot be reached)")
    peer.status = 0x0110
    with peer.listening():
        assert peer.outcome().committed == here
        wait_until(
            "refused", 10, lambda: state_of(sessions, uid)[2] == "answered a failure: 0x0110"
        )
        assert state_of(sessions, uid)[0] == "pending"
        peer.status = 0x0000
        assert peer.outcome().committed == here
        wait_until("delivered", 10, lambda: state_of(sessions, uid)[0] == "delivered")


def test_a_peer_that_keeps_away_is_given_up(
    permitted: Settings, peer: CommitmentPeer, sessions: sessionmaker[Session]
) -> None:
    short = permitted.model_copy(update={"commitment_give_up_h": 1 / 3600})
    before = REGISTRY.get_sample_value("firstread_commitments_abandoned_total") or 0
    with running_listener(short):
        uid = ask(short, peer, store(short))
        wait_until("abandoned", 20, lambda: state_of(sessions, uid)[0] == "abandoned")
        with sessions() as session:
            (says,) = undelivered(session)
        assert "1 given up" in says
        assert (REGISTRY.get_sample_value("firstread_commitments_abandoned_total") or 0) > before
        with peer.listening():  # and is answered when it asks again
            ask(short, peer, store(short), None)
            peer.outcome()


def test_an_object_that_vanishes_before_its_peer_is_reached_is_not_committed(
    listening: Settings, peer: CommitmentPeer, sessions: sessionmaker[Session]
) -> None:
    here = store(listening)
    uid = ask(listening, peer, here)
    wait_until("a failure", 20, lambda: state_of(sessions, uid)[1] >= 1)
    stored_path(sessions, listening, here[0][1]).unlink()
    with sessions.begin() as session:  # as if the peer had been away for a quarter of an hour
        before = CommitmentItem.checked_at - func.make_interval(0, 0, 0, 0, 0, 15)
        session.execute(update(CommitmentItem).values(checked_at=before))
    with peer.listening():
        assert peer.outcome().failed == {here[0][1]: 0x0112}
    with sessions() as session:
        assert session.scalars(select(CommitmentItem.succeeded)).all() == [False]


def test_a_listener_that_is_killed_before_it_answered_answers_when_it_is_back(
    permitted: Settings, peer: CommitmentPeer, sessions: sessionmaker[Session]
) -> None:
    environment = {
        "FIRSTREAD_DICOM_PEERS_FILE": str(permitted.dicom_peers_file),
        "FIRSTREAD_COMMITMENT_RETRY_S": "0.5",
        "FIRSTREAD_DICOM_ACSE_TIMEOUT_S": "5",  # the lease is as long as a call may take
        "FIRSTREAD_DICOM_DIMSE_TIMEOUT_S": "5",
    }
    with serving(permitted, **environment) as first:
        here = store(permitted, 3)
        uid = ask(permitted, peer, here)
        first.send_signal(signal.SIGKILL)
        assert first.wait(10) == -signal.SIGKILL
    assert state_of(sessions, uid)[0] == "pending"
    stored_path(sessions, permitted, here[1][1]).unlink()
    with sessions.begin() as session:  # it may have been checked before the kill
        session.execute(
            update(CommitmentItem).values(succeeded=None, failure_reason=None, checked_at=None)
        )
    with serving(permitted, **environment), peer.listening():
        outcome = peer.outcome(60)
        assert outcome.transaction_uid == uid
        assert outcome.committed == [here[0], here[2]]
        assert outcome.failed == {here[1][1]: 0x0112}


def test_two_listeners_answer_each_request_once(
    listening: Settings, peer: CommitmentPeer, sessions: sessionmaker[Session]
) -> None:
    second = listening.model_copy(update={"dicom_port": free_port()})
    here = store(listening)
    with running_listener(second), peer.listening():
        uids = [ask(settings, peer, here) for settings in (listening, second) * 5]
        got = [peer.outcome().transaction_uid for _ in uids]
        assert sorted(got) == sorted(uids)
        wait_until(
            "all delivered",
            10,
            lambda: {state_of(sessions, uid)[0] for uid in uids} == {"delivered"},
        )
    assert peer.outcomes.empty()


def test_a_request_that_comes_twice_is_one_and_other_objects_under_its_uid_are_refused(
    listening: Settings, peer: CommitmentPeer, sessions: sessionmaker[Session]
) -> None:
    here, other = store(listening, 2)
    with peer.listening():
        uid = ask(listening, peer, [here])
        assert peer.outcome().committed == [here]
        wait_until("delivered", 5, lambda: state_of(sessions, uid)[0] == "delivered")
        with peer.associate(listening.dicom_port) as opened:
            assert peer.ask(opened, [other], uid) == (ActionStatus.INVALID_ARGUMENT, uid)
        ask(listening, peer, [here], uid)
        assert peer.outcome().committed == [here]
    with sessions() as session:
        assert session.scalar(select(func.count()).select_from(CommitmentRequest)) == 1


def test_a_request_that_cannot_be_understood_has_a_status_and_leaves_no_row(
    listening: Settings, peer: CommitmentPeer, sessions: sessionmaker[Session]
) -> None:
    item = ("1.2.840.10008.5.1.4.1.1.2", "1.2.3")
    with peer.associate(listening.dicom_port) as opened:
        refused = [
            peer.ask(opened, [item], action_type=2),
            peer.ask(opened, [item], instance_uid="1.2.3.4"),
            peer.ask(opened, []),
            peer.ask(opened, [(item[0], "")]),
            peer.ask(opened, [(item[0], f"1.2.{number}") for number in range(MAX_ITEMS + 1)]),
        ]
        nameless, _ = opened.send_n_action(request([item]), 1, PUSH_MODEL, WELL_KNOWN)
        assert opened.is_established
    with RawPeer(listening.dicom_port) as raw:
        raw.associate(PUSH_MODEL)
        for garbage in (b"\xff" * 40, bytes(1), b"\x08\x00\x95\x11\xff\xff\xff\x7f1.2"):
            raw.socket.sendall(pdu(pdv(action_command(), command=True, last=True)))
            raw.socket.sendall(pdu(pdv(garbage, command=False, last=True)))
            assert raw.read_status() == ActionStatus.INVALID_ARGUMENT
    assert [status for status, _ in refused] == [
        ActionStatus.NO_SUCH_ACTION,
        ActionStatus.NO_SUCH_INSTANCE,
        ActionStatus.INVALID_ARGUMENT,
        ActionStatus.INVALID_ARGUMENT,
        ActionStatus.RESOURCE_LIMITATION,
    ]
    assert nameless.Status == ActionStatus.INVALID_ARGUMENT
    with sessions() as session:
        assert session.scalar(select(func.count()).select_from(CommitmentRequest)) == 0


def test_nobody_else_is_offered_storage_commitment(listening: Settings) -> None:
    stranger = CommitmentPeer(free_port(), "OTHER")
    with ExitStack() as opened:
        association = opened.enter_context(stranger.associate(listening.dicom_port))
        assert not association.accepted_contexts


def test_requests_objects_and_answers_are_counted_by_what_came_of_them(
    permitted: Settings, peer: CommitmentPeer, sessions: sessionmaker[Session]
) -> None:
    def counted(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(f"firstread_commitment{name}_total", labels) or 0

    def all_counted() -> list[float]:
        return [
            counted("s_asked", status="success"),
            counted("s_asked", status="invalid_argument"),
            counted("_objects", outcome="committed"),
            counted("_objects", outcome="no_such_instance"),
            counted("s_told"),
            counted("s_untold", reason="cannot be reached"),
            counted("s_untold", reason="answered a failure"),
            counted("s_abandoned"),
        ]

    before = all_counted()
    with running_listener(permitted):
        items = [*store(permitted), (reference(radiograph())[0], str(generate_uid()))]
        with peer.associate(permitted.dicom_port) as opened:
            assert peer.ask(opened, [])[0] == ActionStatus.INVALID_ARGUMENT
        uid = ask(permitted, peer, items)
        wait_until("a failure", 20, lambda: state_of(sessions, uid)[1] >= 1)
        peer.status = 0x0110
        with peer.listening():
            wait_until("refused", 20, lambda: "failure" in state_of(sessions, uid)[2])
            peer.status = 0x0000
            wait_until("delivered", 20, lambda: state_of(sessions, uid)[0] == "delivered")
    told = [now - then for now, then in zip(all_counted(), before, strict=True)]
    assert told[:5] == [1, 1, 1, 1, 1]
    assert told[5] >= 1
    assert told[6] >= 1
    assert told[7] == 0
