"""What a rule allows a peer, and how much of it: on the wire."""

import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from common.peers import Peer
from common.settings import Settings
from common.states import OrderPriority, PrioritySource
from common.tables import WorklistItem
from dicom_listener.peers import Caller, Certificate, Refusal, is_admitted
from dicom_listener.statuses import StoreStatus
from tests.certificates import Authority
from tests.commitment_peer import CommitmentPeer
from tests.integration.listener.conftest import (
    association,
    free_port,
    radiograph,
    running_listener,
    send,
)

VERIFICATION = {"1.2.840.10008.1.1": ["1.2.840.10008.1.2"]}
Rule = Callable[..., Settings]


@pytest.fixture
def ruled(settings: Settings, tmp_path: Path) -> Rule:
    """Give settings with a rule for the caller CR1 of this host."""

    def write(rule: str, **changes: object) -> Settings:
        path = tmp_path / f"{free_port()}.toml"
        path.write_text(f'[[peer]]\nae_title = "CR1"\naddresses = ["127.0.0.1"]\n{rule}\n')
        same = {"dicom_port": free_port(), "archive_reserve_bytes": 0, "dicom_peers_file": path}
        return settings.model_copy(update={**same, **changes})

    return write


def test_a_peer_over_its_associations_is_told_to_try_again_and_no_other_is(ruled: Rule) -> None:
    changed = ruled("max_associations = 2")
    with (
        running_listener(changed),
        association(changed, VERIFICATION, ae_title="CR1") as first,
        association(changed, VERIFICATION, ae_title="CR1") as second,
    ):
        assert first.is_established
        assert second.is_established
        with association(changed, VERIFICATION, ae_title="CR1") as third:
            assert third.is_rejected
            answer = third.acceptor.primitive
            assert answer is not None
            refused = (answer.result, answer.result_source, answer.diagnostic)
            assert refused == Refusal.LIMIT_EXCEEDED.value
        with association(changed, VERIFICATION, ae_title="CR2") as other:
            assert other.is_established
        first.release()
        deadline = time.monotonic() + 5
        while True:
            with association(changed, VERIFICATION, ae_title="CR1") as again:
                if again.is_established:
                    break
            assert time.monotonic() < deadline


def test_a_peer_that_may_not_store_is_offered_no_storage(ruled: Rule) -> None:
    changed = ruled("store = false")
    dataset = radiograph()
    classes = VERIFICATION | {str(dataset.SOPClassUID): ["1.2.840.10008.1.2.1"]}
    with running_listener(changed):
        with association(changed, classes, ae_title="CR1") as opened:
            assert [str(one.abstract_syntax) for one in opened.accepted_contexts] == [
                "1.2.840.10008.1.1"
            ]
            assert [one.result for one in opened.rejected_contexts] == [3]
            assert opened.send_c_echo().Status == 0
        assert send(changed, dataset, ae_title="CR2") == [StoreStatus.SUCCESS]


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "pynetdicom"])
def test_objects_over_the_rate_wait_and_none_is_refused(
    settings: Settings, ruled: Rule, direct: bool
) -> None:
    changed = ruled("objects_per_s = 2")
    with running_listener(changed, direct=direct):
        began = time.monotonic()
        answers: list[int] = []

        def send_some() -> None:
            datasets = [radiograph() for _ in range(4)]
            answers.extend(send(changed, *datasets, ae_title="CR1"))

        both = [Thread(target=send_some) for _ in range(2)]  # they share one rate
        for thread in both:
            thread.start()
        assert send(changed, *[radiograph() for _ in range(2)]) == [StoreStatus.SUCCESS] * 2
        assert all(thread.is_alive() for thread in both), "who has no rate waited for who has"
        for thread in both:
            thread.join(30)
        assert answers == [StoreStatus.SUCCESS] * 8
        took_s = time.monotonic() - began
    assert took_s > 2.5  # 2 at once, after a silence; the other 6 in 3 s


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "pynetdicom"])
def test_bytes_over_the_rate_are_read_later(ruled: Rule, direct: bool) -> None:
    changed = ruled("bytes_per_s = 400000", dicom_dimse_timeout_s=1.0)
    dataset = large(1_200_000)
    with running_listener(changed, direct=direct):
        began = time.monotonic()
        assert send(changed, dataset, ae_title="CR1") == [StoreStatus.SUCCESS]
        took_s = time.monotonic() - began
        free = time.monotonic()
        assert send(changed, large(1_200_000)) == [StoreStatus.SUCCESS]
        free_s = time.monotonic() - free
    assert took_s > 1.7  # 400 kB at once, the others in 2 s
    assert free_s < took_s


def test_a_listener_that_stops_waits_for_no_rate(ruled: Rule) -> None:
    changed = ruled("objects_per_s = 0.1")
    with running_listener(changed):
        sender = Thread(
            target=send, args=(changed, radiograph(), radiograph()), kwargs={"ae_title": "CR1"}
        )
        sender.start()
        time.sleep(1)
        began = time.monotonic()
    assert time.monotonic() - began < 9.5  # the second object's turn comes after 10
    sender.join(10)


def test_a_peers_priority_places_its_studies(ruled: Rule, sessions: sessionmaker[Session]) -> None:
    changed = ruled('order_priority = "stat"')
    with running_listener(changed):
        assert send(changed, radiograph(), ae_title="CR1") == [StoreStatus.SUCCESS]
    with sessions() as session:
        item = session.scalars(select(WorklistItem)).one()
    assert item.order_priority is OrderPriority.STAT
    assert item.order_priority_source is PrioritySource.AE_TITLE


def test_a_rule_with_a_certificate_admits_no_other_and_nobody_without(settings: Settings) -> None:
    named = {"ae_title": "CR1", "addresses": ["127.0.0.1"], "certificate_name": "cr1"}
    pinned = {"ae_title": "CR2", "addresses": ["127.0.0.1"], "certificate_sha256": "AB" * 32}
    rules = tuple(Peer.model_validate(rule) for rule in (named, pinned))
    ruled = settings.model_copy(update={"dicom_peers": rules})

    def admitted(ae_title: str, certificate: Certificate | None) -> bool:
        return is_admitted(
            Caller(ae_title, "FIRSTREAD", "127.0.0.1", certificate=certificate), ruled
        )

    assert admitted("CR1", Certificate("cr1", "00" * 32))
    assert not admitted("CR1", Certificate("cr2", "ab" * 32))
    assert not admitted("CR1", None)
    assert admitted("CR2", Certificate("any", "ab" * 32))
    assert not admitted("CR2", Certificate("any", "00" * 32))
    assert admitted("CR3", None)  # loopback, and no rule names it


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_a_certificate_is_one_peers_and_a_call_back_goes_by_tls(
    ruled: Rule, tmp_path: Path
) -> None:
    authority = Authority(tmp_path, "authority")
    server, first, second = (authority.sign(name) for name in ("server", "cr1", "cr2"))
    peer = CommitmentPeer(free_port(), "CR1")
    changed = ruled(
        'certificate_name = "cr1"\nstorage_commitment = true\ncall_back_tls = true\n'
        f'call_back = "CR1@127.0.0.1:{peer.port}"',
        dicom_tls_certificate=server.certificate,
        dicom_tls_key=server.key,
        dicom_tls_ca=authority.certificate,
        dicom_tls_port=free_port(),
    )

    def calls(identity: object, port: int | None) -> bool:
        entity = AE(ae_title="CR1")
        entity.add_requested_context("1.2.840.10008.1.1")
        context = identity and authority.client_context(identity)  # pyright: ignore
        opened = entity.associate(
            "127.0.0.1",
            port or 0,
            ae_title=changed.ae_title,
            tls_args=(context, "server") if context else None,  # pyright: ignore
        )
        established = opened.is_established
        if established:
            opened.release()
        return established

    with running_listener(changed):
        assert calls(first, changed.dicom_tls_port)
        assert not calls(second, changed.dicom_tls_port)
        assert not calls(None, changed.dicom_port)
        items = [("1.2.840.10008.5.1.4.1.1.2", "1.2.3")]
        with peer.listening(tls=authority.server_context(first)):
            client = authority.client_context(first)
            with peer.associate(changed.dicom_tls_port or 0, tls=client) as opened:
                status, uid = peer.ask(opened, items)
                assert status == 0
            outcome = peer.outcome()
        assert outcome.called_back
        assert outcome.transaction_uid == uid


def large(size_bytes: int) -> Dataset:
    """Make an object of so many bytes."""
    dataset = radiograph()
    dataset.PixelData = bytes(size_bytes)
    return dataset
