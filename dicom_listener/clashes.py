"""Objects whose UIDs are taken: the same again, a revision, or a contradiction."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from common.states import SetAsideKind
from common.tables import SetAside
from dicom_listener.attributes import Attributes


@dataclass(frozen=True)
class Received:
    """One object that lies safely in the archive, and where it came from."""

    attributes: Attributes
    pipeline: str
    transfer_syntax_uid: str
    path: str  # below the archive's folder
    size_bytes: int  # of the file
    sha256: bytes  # of the data set
    source_ae_title: str
    source_address: str


class Known(Enum):
    """The object was registered before, byte for byte."""

    REPEAT = "repeat"
    DELETED = "deleted"  # and retention has deleted it since: it is taken again


@dataclass(frozen=True)
class Clash:
    """Something that the object says contradicts what is registered."""

    kind: SetAsideKind | None  # None: the pixels must be compared first
    other_path: str | None = None  # of the instance that has the UID


def relation(facts: Any, received: Received) -> Known | Clash | None:  # noqa: ANN401 - a row
    """Say how this object relates to the instance that has the same UID already, if one has.

    Args:
        facts: The row of the statement ``FACTS``; its ``known`` columns are that instance's.
        received: The object.
    """
    attributes = received.attributes
    if facts.known_sha256 is None:
        return None
    if facts.known_sha256 == received.sha256:
        return Known.DELETED if facts.known_deleted else Known.REPEAT
    if (facts.known_study_uid, facts.known_series_uid) != (
        attributes.study_instance_uid,
        attributes.series_instance_uid,
    ):
        return Clash(SetAsideKind.HIERARCHY_DIFFERS, facts.known_path)
    stated = facts.known_patient_id if facts.known_patient_id_stated else ""
    if stated != attributes.patient_id:
        return Clash(SetAsideKind.PATIENT_DIFFERS, facts.known_path)
    return Clash(None, facts.known_path)


def set_aside(session: Session, received: Received, kind: SetAsideKind) -> None:
    """Record an object that is kept beside the archive's own; once per UID and content."""
    session.execute(
        insert(SetAside)
        .values(
            sop_instance_uid=received.attributes.sop_instance_uid,
            study_instance_uid=received.attributes.study_instance_uid,
            sha256=received.sha256,
            kind=kind,
            path=received.path,
            size_bytes=received.size_bytes,
            source_ae_title=received.source_ae_title,
            source_address=received.source_address,
            received_at=func.clock_timestamp(),
        )
        .on_conflict_do_nothing()
    )


def kept_aside(session: Session, received: Received) -> SetAsideKind | None:
    """Find out whether the same object was set aside before, and why."""
    return session.execute(
        select(SetAside.kind).where(
            SetAside.sop_instance_uid == received.attributes.sop_instance_uid,
            SetAside.sha256 == received.sha256,
        )
    ).scalar_one_or_none()
