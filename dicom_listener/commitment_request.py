"""Storage commitment asked for: an N-ACTION becomes rows before it is answered.

Source: PS3.4 annex J.3.2.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple, cast

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.dimse_primitives import N_ACTION
from sqlalchemy import func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session, sessionmaker

from common import metrics
from common.commitment_tables import CommitmentItem, CommitmentRequest
from common.database import storage_errors
from common.errors import StorageUnavailableError
from common.logs import get_logger
from dicom_listener.attributes import is_uid
from dicom_listener.connections import Acceptor
from dicom_listener.event_reports import COMMITMENT_INSTANCE_UID

MAX_ITEMS = 10_000
_REQUEST_COMMITMENT = 1
_OTHERS_WAIT_S = 5  # the listener that was asked has the association, and goes first

log = get_logger()


class ActionStatus(IntEnum):
    """N-ACTION statuses. Source: PS3.7 section 10.1.4.1.10."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    NO_SUCH_INSTANCE = 0x0112
    INVALID_ARGUMENT = 0x0115
    NO_SUCH_ACTION = 0x0123
    NOT_AUTHORISED = 0x0124
    RESOURCE_LIMITATION = 0x0213


class Asked(NamedTuple):
    """A request as understood: its transaction, and (class, instance) of each object."""

    transaction_uid: str
    items: tuple[tuple[str, str], ...]


class RefusedRequestError(Exception):
    """The request is answered with a failure and leaves no row."""

    def __init__(self, status: ActionStatus, comment: str) -> None:
        super().__init__(comment)
        self.status = status


class CommitmentService:
    """Handle N-ACTION of all associations."""

    def __init__(
        self, sessions: sessionmaker[Session], begin: Callable[[int, Acceptor], None]
    ) -> None:
        """Take what the handler works with.

        Args:
            sessions: Makes sessions on the ledger.
            begin: Tells who answers of a request and the association it came on; must not wait.
        """
        self._sessions = sessions
        self._begin = begin

    def handle_action(self, event: evt.Event) -> tuple[Dataset, None]:
        """Answer an N-ACTION: Success means that the request is kept and will be answered."""
        association = cast(Acceptor, event.assoc)
        logged = log.bind(
            source_ae_title=str(association.requestor.ae_title).strip(),
            source_address=str(association.requestor.address),
        )
        answer = Dataset()
        answer.Status = int(ActionStatus.SUCCESS)
        try:
            request_id = self._take(event, association)
        except RefusedRequestError as error:
            logged.warning("commitment_refused", reason=str(error), status=f"0x{error.status:04X}")
            answer.Status = int(error.status)
            answer.ErrorComment = str(error)[:64]
        except StorageUnavailableError as error:
            logged.error("commitment_not_taken", reason=str(error))
            answer.Status = int(ActionStatus.RESOURCE_LIMITATION)
            answer.ErrorComment = "database away; ask again later"
        except Exception:  # the boundary: a peer must get a status
            logged.exception("commitment_not_taken")
            answer.Status = int(ActionStatus.PROCESSING_FAILURE)
        else:
            logged.info("commitment_requested", request_id=request_id)
            self._begin(request_id, association)
        metrics.COMMITMENTS_ASKED.labels(ActionStatus(answer.Status).name.lower()).inc()
        return answer, None

    def _take(self, event: evt.Event, association: Acceptor) -> int:
        if not association.peer.storage_commitment:
            raise RefusedRequestError(ActionStatus.NOT_AUTHORISED, "not for this peer")
        request = cast(N_ACTION, event.request)
        if str(request.RequestedSOPInstanceUID or "") != COMMITMENT_INSTANCE_UID:
            raise RefusedRequestError(ActionStatus.NO_SUCH_INSTANCE, "not the well-known instance")
        if event.action_type != _REQUEST_COMMITMENT:
            raise RefusedRequestError(ActionStatus.NO_SUCH_ACTION, "not action type 1")
        try:
            asked = read_request(event.action_information)
        except RefusedRequestError:
            raise
        except Exception as error:  # what pydicom raises at a malformed data set is its own affair
            raise RefusedRequestError(
                ActionStatus.INVALID_ARGUMENT, "the data set cannot be understood"
            ) from error
        ae_title = str(association.requestor.ae_title).strip()
        with storage_errors(), self._sessions.begin() as session:
            return keep_request(session, asked, ae_title, str(association.requestor.address))


def read_request(information: Dataset) -> Asked:
    """Read the transaction and its objects.

    Raises:
        RefusedRequestError: something is missing, no UID, twice there or far too much.
    """
    transaction = str(information.get("TransactionUID") or "")
    sequence = information.get("ReferencedSOPSequence") or ()
    if not is_uid(transaction):
        raise RefusedRequestError(ActionStatus.INVALID_ARGUMENT, "no Transaction UID")
    if not sequence:
        raise RefusedRequestError(ActionStatus.INVALID_ARGUMENT, "no Referenced SOP Sequence")
    if len(sequence) > MAX_ITEMS:
        raise RefusedRequestError(ActionStatus.RESOURCE_LIMITATION, f"over {MAX_ITEMS} objects")
    items = tuple(
        (
            str(item.get("ReferencedSOPClassUID") or ""),
            str(item.get("ReferencedSOPInstanceUID", "")),
        )
        for item in sequence
    )
    if not all(is_uid(uid) for pair in items for uid in pair):
        raise RefusedRequestError(ActionStatus.INVALID_ARGUMENT, "an object without its UIDs")
    return Asked(transaction, items)


def keep_request(session: Session, asked: Asked, ae_title: str, address: str) -> int:
    """Write the request; one that came before, with the same objects, is answered once more.

    Raises:
        RefusedRequestError: the transaction UID came before with other objects.
    """
    later = func.clock_timestamp() + text(f"interval '{_OTHERS_WAIT_S} s'")
    new = session.scalar(
        upsert(CommitmentRequest)
        .values(
            transaction_uid=asked.transaction_uid,
            calling_ae_title=ae_title,
            source_address=address,
            next_try_at=later,
        )
        .on_conflict_do_nothing()
        .returning(CommitmentRequest.id)
    )
    if new is not None:
        session.execute(
            insert(CommitmentItem),
            [
                {
                    "request_id": new,
                    "position": position,
                    "sop_class_uid": sop_class_uid,
                    "sop_instance_uid": sop_instance_uid,
                }
                for position, (sop_class_uid, sop_instance_uid) in enumerate(asked.items)
            ],
        )
        return new
    known = session.scalars(
        select(CommitmentRequest)
        .where(
            CommitmentRequest.calling_ae_title == ae_title,
            CommitmentRequest.transaction_uid == asked.transaction_uid,
        )
        .with_for_update()
    ).one()
    if tuple((item.sop_class_uid, item.sop_instance_uid) for item in known.items) != asked.items:
        raise RefusedRequestError(
            ActionStatus.INVALID_ARGUMENT, "Transaction UID in use for other objects"
        )
    if known.state != "pending":
        session.execute(
            update(CommitmentRequest)
            .where(CommitmentRequest.id == known.id)
            .values(
                state="pending",
                ended_at=None,
                failures=0,
                requested_at=func.clock_timestamp(),
                next_try_at=later,
            )
        )
    return known.id
