"""What the worklist shows, read in few and bounded statements; the command line asks here too."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    and_,
    any_,
    cast,
    func,
    or_,
    select,
    tuple_,
    union,
)
from sqlalchemy.orm import Session

from common.search_indexes import ACCESSION_NUMBER, PATIENT_ID, PATIENT_NAME
from common.states import AnalysisState, Outcome, ReadingState
from common.tables import Analysis, Patient, Reading, Site, Study, WorklistItem
from common.worklist import SITE_ID, database_now
from dashboard.worklist_row import RankKey, WorklistRow, make_row, select_rows

PAGE_SIZE = 50
RECENT_READ = 5_000
SEARCHED_WITHIN = 5_000  # the first studies of the list; behind them only beginnings are found
BEGINNING_AT_MOST = 1_000
COUNTED_AT_MOST = 10_000  # beyond it the page says "more than"

Holder = Literal["any", "nobody", "me", "others"]


@dataclass(frozen=True)
class Filters:
    """What the reader wants to see of the list; empty: everything."""

    outcomes: frozenset[Outcome] = frozenset()
    band: int | None = None
    holder: Holder = "any"
    text: str = ""  # part of an accession number, patient name or patient id


@dataclass(frozen=True)
class WorklistPage:
    """A page of the list, and when it was true."""

    rows: tuple[WorklistRow, ...]
    as_of: datetime
    more: bool


@dataclass(frozen=True)
class Pulse:
    """Whether the system lives: what came last, and how much waits."""

    as_of: datetime
    listed: int  # at most COUNTED_AT_MOST
    by_band: dict[int, int]
    by_outcome: dict[Outcome, int]
    last_received_at: datetime | None
    last_result_at: datetime | None
    oldest_queued_at: datetime | None
    ai_ranking: bool


def worklist_page(
    session: Session,
    filters: Filters | None = None,
    *,
    after: RankKey | None = None,
    size: int = PAGE_SIZE,
    actor: str = "",
    searched_within: int = SEARCHED_WITHIN,
) -> WorklistPage:
    """Read the studies to be read, in their order, that stand behind ``after``."""
    as_of = database_now(session)
    matching = _matching(session, filters or Filters(), actor, as_of, searched_within)
    wanted = select_rows().where(WorklistItem.listed, *matching)
    if after is not None:
        wanted = wanted.where(_rank() > (after.band, after.due_at, after.study_id))
    found = session.execute(
        wanted.order_by(WorklistItem.band, WorklistItem.due_at, WorklistItem.study_id).limit(
            size + 1
        )
    ).all()
    return WorklistPage(
        tuple(make_row(row, as_of) for row in found[:size]), as_of, len(found) > size
    )


def recently_read(session: Session, *, text: str = "", size: int = PAGE_SIZE) -> WorklistPage:
    """Read the studies that were taken off the list last, the newest first.

    A text is looked for among the RECENT_READ newest, so that no search walks through years.
    """
    as_of = database_now(session)
    recent = (
        select(Reading.study_id)
        .where(Reading.state == ReadingState.READ)
        .order_by(Reading.read_at.desc())
        .limit(RECENT_READ)
        .subquery()
    )
    found = session.execute(
        select_rows()
        .join(recent, recent.c.study_id == WorklistItem.study_id)
        .where(~WorklistItem.listed, *([_contains(text.strip())] if text.strip() else []))
        .order_by(Reading.read_at.desc())
        .limit(size)
    ).all()
    return WorklistPage(tuple(make_row(row, as_of) for row in found), as_of, more=False)


def find_row(session: Session, study_instance_uid: str) -> WorklistRow | None:
    """Read one study, on the list or not."""
    as_of = database_now(session)
    row = session.execute(
        select_rows().where(Study.study_instance_uid == study_instance_uid)
    ).one_or_none()
    return None if row is None else make_row(row, as_of)


def prior_rows(session: Session, study_id: int, *, limit: int = 8) -> tuple[WorklistRow, ...]:
    """Read the patient's other studies, the newest first; none for a patient without an id."""
    as_of = database_now(session)
    this = (
        select(Study.patient_id)
        .join(Patient, Patient.id == Study.patient_id)
        .where(Study.id == study_id, Patient.patient_id_stated)
        .scalar_subquery()
    )
    made = func.coalesce(Study.acquired_at, Study.first_received_at)
    found = session.execute(
        select_rows()
        .where(Study.patient_id == this, Study.id != study_id)
        .order_by(made.desc(), Study.id.desc())
        .limit(limit)
    ).all()
    return tuple(make_row(row, as_of) for row in found)


def neighbours(
    session: Session, key: RankKey, filters: Filters, actor: str
) -> tuple[str | None, str | None]:
    """Give the UIDs before and behind a place; the next one skips what another reader holds."""
    as_of = database_now(session)
    base = (
        select(Study.study_instance_uid)
        .select_from(WorklistItem)
        .join(Study, Study.id == WorklistItem.study_id)
        .join(Patient, Patient.id == Study.patient_id)
        .outerjoin(Reading, Reading.study_id == WorklistItem.study_id)
        .where(WorklistItem.listed, *_matching(session, filters, actor, as_of))
    )
    here = (key.band, key.due_at, key.study_id)
    order = (WorklistItem.band, WorklistItem.due_at, WorklistItem.study_id)
    free = ~and_(_claimed(as_of), Reading.claimed_by != actor)
    following = session.execute(
        base.where(_rank() > here, or_(Reading.study_id.is_(None), free)).order_by(*order).limit(1)
    ).scalar_one_or_none()
    preceding = session.execute(
        base.where(_rank() < here).order_by(*(column.desc() for column in order)).limit(1)
    ).scalar_one_or_none()
    return preceding, following


def pulse(session: Session) -> Pulse:
    """Read whether the system lives, from the ends of indexes and a bounded count."""
    part = (
        select(WorklistItem.band, WorklistItem.outcome)
        .where(WorklistItem.listed)
        .limit(COUNTED_AT_MOST)
        .subquery()
    )
    counts = session.execute(
        select(part.c.band, part.c.outcome, func.count()).group_by(part.c.band, part.c.outcome)
    ).all()
    by_band: dict[int, int] = {}
    by_outcome: dict[Outcome, int] = {}
    for band, outcome, count in counts:
        by_band[band] = by_band.get(band, 0) + count
        by_outcome[outcome] = by_outcome.get(outcome, 0) + count
    ends = session.execute(
        select(
            func.clock_timestamp().label("as_of"),
            select(func.max(Study.last_received_at)).scalar_subquery().label("last_received_at"),
            select(Analysis.finished_at)
            .where(Analysis.state == AnalysisState.DONE, Analysis.finished_at.is_not(None))
            .order_by(Analysis.finished_at.desc())
            .limit(1)
            .scalar_subquery()
            .label("last_result_at"),
            select(func.min(Analysis.queued_at))
            .where(Analysis.state == AnalysisState.QUEUED)
            .scalar_subquery()
            .label("oldest_queued_at"),
            select(Site.ai_ranking).where(Site.id == SITE_ID).scalar_subquery().label("ai_ranking"),
        )
    ).one()
    return Pulse(
        as_of=ends.as_of,
        listed=sum(by_band.values()),
        by_band=by_band,
        by_outcome=by_outcome,
        last_received_at=ends.last_received_at,
        last_result_at=ends.last_result_at,
        oldest_queued_at=ends.oldest_queued_at,
        ai_ranking=ends.ai_ranking,
    )


def _rank() -> Any:  # noqa: ANN401 - an SQL row expression, compared with a tuple
    return tuple_(WorklistItem.band, WorklistItem.due_at, WorklistItem.study_id)


def _claimed(as_of: datetime) -> ColumnElement[bool]:
    return and_(Reading.state == ReadingState.CLAIMED, Reading.claimed_until > as_of)


def _matching(
    session: Session,
    filters: Filters,
    actor: str,
    as_of: datetime,
    searched_within: int = SEARCHED_WITHIN,
) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if filters.outcomes:
        conditions.append(WorklistItem.outcome.in_(filters.outcomes))
    if filters.band is not None:
        conditions.append(WorklistItem.band == filters.band)
    if filters.holder == "nobody":
        conditions.append(or_(Reading.study_id.is_(None), ~_claimed(as_of)))
    elif filters.holder == "me":
        conditions.append(and_(_claimed(as_of), Reading.claimed_by == actor))
    elif filters.holder == "others":
        conditions.append(and_(_claimed(as_of), Reading.claimed_by != actor))
    if text := filters.text.strip():
        # Asked first: in one statement the planner may walk the whole list for a few studies.
        found = list(session.scalars(_found(text, searched_within)))
        conditions.append(WorklistItem.study_id == any_(cast(found, ARRAY(BigInteger))))
    return conditions


def _contains(text: str) -> ColumnElement[bool]:
    return or_(
        Study.accession_number.icontains(text, autoescape=True),
        Patient.patient_id.icontains(text, autoescape=True),
        func.replace(Patient.patient_name, "^", " ").icontains(text, autoescape=True),
    )


def _found(text: str, searched_within: int) -> Any:  # noqa: ANN401 - a compound SELECT of study ids
    """Select the studies with a text: anywhere in the first of the list, else at its beginning.

    A list of a million studies cannot be read through for a text that nobody has.
    """
    first = (
        select(WorklistItem.study_id)
        .where(WorklistItem.listed)
        .order_by(WorklistItem.band, WorklistItem.due_at, WorklistItem.study_id)
        .limit(searched_within)
        .subquery()
    )
    near_top = (
        select(Study.id)
        .join(first, first.c.study_id == Study.id)
        .join(Patient, Patient.id == Study.patient_id)
        .where(_contains(text))
    )
    accession = ACCESSION_NUMBER.startswith(text.upper(), autoescape=True)
    beginnings = [
        select(select(Study.id).where(accession).limit(BEGINNING_AT_MOST).subquery().c.id)
    ]
    for begins in (
        PATIENT_ID.startswith(text.upper(), autoescape=True),
        PATIENT_NAME.startswith(text.upper(), autoescape=True),
    ):
        people = select(Patient.id).where(begins).limit(BEGINNING_AT_MOST).subquery()
        beginnings.append(select(Study.id).join(people, people.c.id == Study.patient_id))
    return union(near_top, *beginnings)
