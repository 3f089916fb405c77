"""The outcome of a request, told to the peer that asked: N-EVENT-REPORT, and what it answers.

On the association of the request while that stands; else on a new one to the peer's address, where
we propose ourselves in the SCP's role. Source: PS3.4 annex J.3.3.
"""

import ssl
import time
from collections.abc import Iterable

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pynetdicom import AE, build_role
from pynetdicom.presentation import build_context

from common.commitment_tables import CommitmentItem
from common.peers import CallBack
from common.settings import Settings
from dicom_listener.connections import Acceptor
from dicom_listener.event_reports import (
    COMMITMENT_CLASS_UID,
    COMMITMENT_INSTANCE_UID,
    EventReport,
)
from dicom_listener.reception import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

_SUCCESSFUL, _FAILURES_EXIST = 1, 2
_POLL_S = 0.05


class UndeliveredError(Exception):
    """The peer was not told, or did not say that it understood.

    The message is ours, and behind a colon what this peer or line had to add.
    """


def write_report(transaction_uid: str, items: Iterable[CommitmentItem]) -> EventReport:
    """Write the report of a request whose objects are all checked."""
    information = Dataset()
    information.TransactionUID = transaction_uid
    kept, failed = [], []
    for item in items:
        reference = Dataset()
        reference.ReferencedSOPClassUID = item.sop_class_uid
        reference.ReferencedSOPInstanceUID = item.sop_instance_uid
        if item.succeeded:
            kept.append(reference)
        else:
            reference.FailureReason = item.failure_reason
            failed.append(reference)
    if kept:
        information.ReferencedSOPSequence = Sequence(kept)
    if failed:
        information.FailedSOPSequence = Sequence(failed)
    return EventReport(_FAILURES_EXIST if failed else _SUCCESSFUL, information)


def tell_here(report: EventReport, association: Acceptor, timeout_s: float) -> None:
    """Tell the peer on the association that it asked on.

    Raises:
        UndeliveredError: the association ended, or the peer answered nothing or a failure.
    """
    association.provider.report(report)
    deadline = time.monotonic() + timeout_s
    while not report.answered.wait(_POLL_S):
        if not association.is_established:
            raise UndeliveredError("the association ended")
        if time.monotonic() > deadline:
            raise UndeliveredError("no answer on its association")
    _require_success(report.status)


def call_back(
    report: EventReport, peer: CallBack, settings: Settings, tls: ssl.SSLContext | None
) -> None:
    """Tell the peer on an association of our own.

    Raises:
        UndeliveredError: it cannot be reached, refuses the role, or answers a failure.
    """
    entity = AE(ae_title=settings.ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.connection_timeout = entity.acse_timeout = settings.dicom_acse_timeout_s
    entity.dimse_timeout = entity.network_timeout = settings.dicom_dimse_timeout_s
    try:
        association = entity.associate(
            peer.host,
            peer.port,
            contexts=[build_context(COMMITMENT_CLASS_UID)],
            ae_title=peer.ae_title,
            ext_neg=[build_role(COMMITMENT_CLASS_UID, scp_role=True)],
            tls_args=None if tls is None else (tls, peer.host),
        )
    except (OSError, RuntimeError) as error:  # a name that nobody resolves
        raise UndeliveredError(f"cannot be called: {type(error).__name__}") from error
    if not association.is_established:
        why = "rejected the association" if association.is_rejected else "cannot be reached"
        raise UndeliveredError(why)
    try:
        contexts = association.accepted_contexts
        if not contexts:
            raise UndeliveredError("does not take storage commitment")
        if not contexts[0].as_scp:
            raise UndeliveredError("refused us the role of SCP")
        status, _ = association.send_n_event_report(
            report.information, report.event_type, COMMITMENT_CLASS_UID, COMMITMENT_INSTANCE_UID
        )
        _require_success(status.get("Status"))
    except (RuntimeError, ValueError) as error:  # the peer left between two steps
        raise UndeliveredError(f"hung up: {type(error).__name__}") from error
    finally:
        if association.is_established:
            association.release()


def _require_success(status: int | None) -> None:
    if status is None:
        raise UndeliveredError("no answer")
    if status != 0:
        raise UndeliveredError(f"answered a failure: 0x{status:04X}")
