"""A peer that asks for storage commitment and takes the answers: SCU of one, SCP of the other."""

import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from queue import Empty, Queue
from threading import Lock
from typing import Any, NamedTuple

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_EVENT_REPORT, DimsePrimitiveType
from pynetdicom.sop_class import uid_to_service_class

PUSH_MODEL, WELL_KNOWN = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"


class Outcome(NamedTuple):
    """One N-EVENT-REPORT as the peer got it."""

    transaction_uid: str
    event_type: int
    committed: list[tuple[str, str]]
    failed: dict[str, int]  # SOP Instance UID: Failure Reason
    called_back: bool  # on an association that the listener opened
    calling_ae_title: str


class Requestor(Association):
    """A device's association, which may take a report while it asks or stores.

    pynetdicom serves a report on a thread of its own. That thread notes at its end that the
    association's thread runs, though it may wait to be let on: who asks next would wait for ever
    for it to pause. And its answer may come between two fragments of what is being sent.
    """

    @classmethod
    def take_over(cls, opened: Association) -> None:
        """Make one of an association that stands."""
        opened.__class__ = cls
        whole, send_msg = Lock(), opened.dimse.send_msg

        def send_whole(primitive: DimsePrimitiveType, context_id: int) -> None:
            with whole:
                send_msg(primitive, context_id)

        opened.dimse.send_msg = send_whole

    def _serve_request(self, msg: Any, context_id: int) -> None:  # noqa: ANN401 - theirs
        assert isinstance(msg, N_EVENT_REPORT), "a listener asks nothing else of its senders"
        service = uid_to_service_class(str(msg.AffectedSOPClassUID))(self)
        service.SCP(msg, self._accepted_cx[context_id])


class CommitmentPeer:
    """One device; ``port`` is where it is to be called back, open only within ``listening``."""

    def __init__(self, port: int, ae_title: str = "MODALITY") -> None:
        self.port, self.ae_title = port, ae_title
        self.outcomes: Queue[Outcome] = Queue()
        self.status = 0x0000  # what it answers to reports

    @contextmanager
    def listening(
        self, *, take_role: bool = True, tls: ssl.SSLContext | None = None
    ) -> Iterator[None]:
        """Take calls; ``take_role``: let the caller be the SCP, as it must."""
        entity = AE(ae_title=self.ae_title)
        entity.add_supported_context(
            PUSH_MODEL, scu_role=True if take_role else None, scp_role=True if take_role else None
        )
        server = entity.start_server(
            ("127.0.0.1", self.port),
            block=False,
            ssl_context=tls,
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._take)],
        )
        try:
            yield
        finally:
            assert server is not None
            server.shutdown()

    @contextmanager
    def associate(
        self,
        port: int,
        called: str = "FIRSTREAD",
        classes: Iterable[str] = (),
        tls: ssl.SSLContext | None = None,
    ) -> Iterator[Association]:
        """Open an association that offers storage commitment, and these classes to store."""
        entity = AE(ae_title=self.ae_title)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
        entity.add_requested_context(PUSH_MODEL)
        for uid in classes:
            entity.add_requested_context(uid, ExplicitVRLittleEndian)
        opened = entity.associate(
            "127.0.0.1",
            port,
            ae_title=called,
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._take)],
            tls_args=None if tls is None else (tls, "listener"),
        )
        if opened.is_established:
            Requestor.take_over(opened)
        try:
            yield opened
        finally:
            if opened.is_established:
                opened.release()

    def ask(
        self,
        opened: Association,
        items: Iterable[tuple[str, str]],
        transaction_uid: str | None = None,
        *,
        action_type: int = 1,
        instance_uid: str = WELL_KNOWN,
    ) -> tuple[int, str]:
        """Ask on an association; give the status and the Transaction UID."""
        transaction_uid = transaction_uid or str(generate_uid())
        information = request(items)
        information.TransactionUID = transaction_uid
        status, _ = opened.send_n_action(information, action_type, PUSH_MODEL, instance_uid)
        return int(status.Status), transaction_uid

    def outcome(self, timeout_s: float = 20) -> Outcome:
        """Give the next report."""
        try:
            return self.outcomes.get(timeout=timeout_s)
        except Empty:
            raise AssertionError(f"no report within {timeout_s} s") from None

    def _take(self, event: evt.Event) -> tuple[int, Any]:
        information = event.event_information
        self.outcomes.put(
            Outcome(
                transaction_uid=str(information.TransactionUID),
                event_type=int(event.event_type or 0),
                committed=[
                    (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
                    for item in information.get("ReferencedSOPSequence", ())
                ],
                failed={
                    str(item.ReferencedSOPInstanceUID): int(item.FailureReason)
                    for item in information.get("FailedSOPSequence", ())
                },
                called_back=event.assoc.is_acceptor,
                calling_ae_title=str(event.assoc.requestor.ae_title).strip(),
            )
        )
        return self.status, None


def request(items: Iterable[tuple[str, str]]) -> Dataset:
    """Write the Action Information of a request, without its Transaction UID."""
    references = []
    for sop_class_uid, sop_instance_uid in items:
        reference = Dataset()
        reference.ReferencedSOPClassUID = sop_class_uid
        reference.ReferencedSOPInstanceUID = sop_instance_uid
        references.append(reference)
    information = Dataset()
    if references:
        information.ReferencedSOPSequence = Sequence(references)
    return information


def wait_until(what: str, timeout_s: float, is_so: Any) -> None:  # noqa: ANN401 - a callable
    """Wait until something is so."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)
