"""Whether an object that a peer asks about is really here: its row, its file, its bytes.

Source: PS3.3 table C.14-1 for the failure reasons.
"""

import hashlib
from enum import IntEnum
from pathlib import Path

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from common import metrics
from common.archive import Archive
from common.commitment_tables import CommitmentItem, hold_commitments
from common.logs import get_logger
from common.tables import Instance

_HEAD_BYTES = 144  # preamble, DICM, and the group length that ends the file meta information
_READ_BYTES = 1 << 20

log = get_logger()


class FailureReason(IntEnum):
    """Failure Reason (0008,1197)."""

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_INSTANCE = 0x0112
    CLASS_MISMATCH = 0x0119
    RESOURCE_LIMITATION = 0x0213


def check_item(sessions: sessionmaker[Session], archive: Archive, item: CommitmentItem) -> None:
    """Hash one object from disk and write what came of it, committed before anybody is told."""
    with sessions() as session:
        found = session.execute(
            select(Instance.path, Instance.sha256, Instance.sop_class_uid).where(
                Instance.sop_instance_uid == item.sop_instance_uid
            )
        ).one_or_none()
    reason: FailureReason | None
    path: Path | None = None
    if found is None:
        reason = FailureReason.NO_SUCH_INSTANCE
    elif found.sop_class_uid != item.sop_class_uid:
        reason = FailureReason.CLASS_MISMATCH
    else:
        path = archive.path(found.path)
        reason = _compare(path, found.sha256)
    with sessions.begin() as session:
        hold_commitments(session)  # whoever deletes sees this row, or has deleted by now
        if path is not None and (_is_deleted(session, item) or not path.exists()):
            reason = FailureReason.NO_SUCH_INSTANCE
        session.execute(
            update(CommitmentItem)
            .where(
                CommitmentItem.request_id == item.request_id,
                CommitmentItem.position == item.position,
            )
            .values(
                succeeded=reason is None,
                failure_reason=None if reason is None else int(reason),
                checked_at=func.clock_timestamp(),
            )
        )
    outcome = "committed" if reason is None else reason.name.lower()
    metrics.COMMITMENT_OBJECTS.labels(outcome).inc()
    if reason is not None:
        log.warning(
            "commitment_denied",
            sop_instance_uid=item.sop_instance_uid,
            reason=outcome,
            request_id=item.request_id,
        )


def _is_deleted(session: Session, item: CommitmentItem) -> bool:
    """Say whether retention took the object: its file may be there for a moment longer."""
    deleted = select(Instance.id).where(
        Instance.sop_instance_uid == item.sop_instance_uid, Instance.deleted_at.is_not(None)
    )
    return session.scalar(deleted) is not None


def _compare(path: Path, sha256: bytes) -> FailureReason | None:
    try:
        same = data_set_sha256(path) == sha256
    except FileNotFoundError:
        return FailureReason.NO_SUCH_INSTANCE
    except OSError as error:
        log.error("object_unreadable", reason=error.strerror)
        return FailureReason.PROCESSING_FAILURE
    return None if same else FailureReason.PROCESSING_FAILURE


def data_set_sha256(path: Path) -> bytes:
    """Hash the data set of a Part 10 file that the listener wrote, without its file meta.

    Raises:
        OSError: it cannot be read, or is not there.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
        stream.seek(len(head) + int.from_bytes(head[140:], "little"))
        while block := stream.read(_READ_BYTES):
            digest.update(block)
    return digest.digest()
