"""One study as the worklist shows it, and the statement that reads it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Select, select

from common.states import OrderPriority, Outcome, PrioritySource, ReadingState
from common.tables import Patient, Reading, Study, WorklistItem


@dataclass(frozen=True)
class RankKey:
    """A place on the list; the next page starts behind it, whatever has come or gone."""

    band: int
    due_at: datetime
    study_id: int


@dataclass(frozen=True)
class WorklistRow:
    """One study as the list shows it."""

    study_id: int
    study_instance_uid: str
    accession_number: str
    patient_name: str
    patient_id: str
    patient_sex: str
    age: str
    study_description: str
    source_ae_title: str
    acquired_at: datetime | None
    first_received_at: datetime
    waiting: timedelta
    band: int
    due_at: datetime
    order_priority: OrderPriority
    order_priority_source: PrioritySource
    reason: str
    outcome: Outcome
    probability: float | None
    images: int  # analyses done: the probability is the highest of these
    final: bool  # False: provisional, more may come
    listed: bool
    prior: bool
    new_image_since_read: bool
    state: ReadingState
    claimed_by: str | None
    claimed_until: datetime | None
    read_by: str | None
    read_at: datetime | None
    reported_elsewhere: bool

    @property
    def key(self) -> RankKey:
        """The study's place on the list."""
        return RankKey(self.band, self.due_at, self.study_id)


def select_rows() -> Select[WorklistItem, Study, Patient, Reading]:
    """Select what a row is made of: item, study, patient and reading."""
    return (
        select(WorklistItem, Study, Patient, Reading)
        .join(Study, Study.id == WorklistItem.study_id)
        .join(Patient, Patient.id == Study.patient_id)
        .outerjoin(Reading, Reading.study_id == WorklistItem.study_id)
    )


def make_row(found: Sequence[Any], as_of: datetime) -> WorklistRow:
    """Make a row; a claim that has run out by ``as_of`` is none."""
    item, study, patient, reading = found
    claimed = (
        reading is not None
        and reading.state is ReadingState.CLAIMED
        and reading.claimed_until is not None
        and reading.claimed_until > as_of
    )
    state = ReadingState.CLAIMED if claimed else ReadingState.UNREAD
    if reading is not None and reading.state is ReadingState.READ and not item.listed:
        state = ReadingState.READ
    return WorklistRow(
        study_id=study.id,
        study_instance_uid=study.study_instance_uid,
        accession_number=study.accession_number,
        patient_name=patient.patient_name,
        patient_id=patient.patient_id if patient.patient_id_stated else "",
        patient_sex=patient.patient_sex,
        age=age_text(
            study.patient_age,
            patient.patient_birth_date,
            study.acquired_at or study.first_received_at,
        ),
        study_description=study.study_description,
        source_ae_title=study.source_ae_title,
        acquired_at=study.acquired_at,
        first_received_at=study.first_received_at,
        waiting=as_of - study.first_received_at,
        band=item.band,
        due_at=item.due_at,
        order_priority=item.order_priority,
        order_priority_source=item.order_priority_source,
        reason=item.reason,
        outcome=item.outcome,
        probability=item.probability,
        images=item.images,
        final=item.final,
        listed=item.listed,
        prior=item.prior,
        new_image_since_read=item.new_image_since_read,
        state=state,
        claimed_by=reading.claimed_by if reading and claimed else None,
        claimed_until=reading.claimed_until if reading and claimed else None,
        read_by=reading.read_by if reading else None,
        read_at=reading.read_at if reading else None,
        reported_elsewhere=bool(reading and reading.reported_elsewhere),
    )


def age_text(patient_age: str, birth_date: str, at: datetime) -> str:
    """Spell an age: PatientAge if it is one, else from the birth date, else nothing."""
    number, unit = patient_age[:3], patient_age[3:4].upper()
    if len(patient_age) == 4 and number.isdigit() and unit in _AGE_UNITS:
        return f"{int(number)} {_AGE_UNITS[unit]}"
    try:
        born = date.fromisoformat(birth_date)
    except ValueError:
        return ""
    years = at.year - born.year - ((at.month, at.day) < (born.month, born.day))
    return f"{years} y" if 0 <= years < 150 else ""


_AGE_UNITS = {"Y": "y", "M": "mo", "W": "wk", "D": "d"}
