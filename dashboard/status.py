"""What the system is doing and what went wrong: counts, rates, hops, failures, models."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from common.states import AnalysisState, ModelState, Outcome, ReadingState, SetAsideKind
from common.tables import Analysis, ModelVersion, Reading, SetAside, Study, WorklistItem
from common.worklist import database_now

RECENT_ANALYSES = 1000  # the hops and refusals are of these, the last ones
HOPS = {
    "Received to queued": (Analysis.received_at, Analysis.queued_at),
    "Waiting in the queue": (Analysis.queued_at, Analysis.claimed_at),
    "Decoding": (Analysis.claimed_at, Analysis.decoded_at),
    "Model, with batching": (Analysis.decoded_at, Analysis.predicted_at),
    "Storing": (Analysis.predicted_at, Analysis.finished_at),
    "Received to result": (Analysis.received_at, Analysis.finished_at),
}


@dataclass(frozen=True)
class Status:
    """Counts by state, the oldest that waits, and how much came and went of late."""

    as_of: datetime
    studies: dict[str, int]  # unread, claimed, read, prior
    outcomes: dict[str, int]  # of the studies on the list
    analyses: dict[str, int]
    oldest_unread_at: datetime | None
    oldest_queued_at: datetime | None
    received_last_hour: int  # studies
    analysed_last_hour: int  # images
    analysed_last_minute: int


@dataclass(frozen=True)
class Hop:
    """How long one step took, over the last results."""

    name: str
    p50_s: float | None
    p95_s: float | None
    n: int


@dataclass(frozen=True)
class FailedAnalysis:
    """One image that could not be analysed, and why."""

    analysis_id: int
    study_instance_uid: str
    accession_number: str
    pipeline: str
    error: str
    failures: int
    losses: int
    finished_at: datetime | None


@dataclass(frozen=True)
class SetAsideObject:
    """One object kept beside the archive."""

    received_at: datetime
    kind: SetAsideKind
    sop_instance_uid: str
    study_instance_uid: str
    source_ae_title: str
    source_address: str
    size_bytes: int


@dataclass(frozen=True)
class ModelRow:
    """One registered bundle."""

    pipeline: str
    name: str
    version: str
    state: ModelState
    threshold: float | None
    bundle_sha256: str
    activated_at: datetime | None


def read_status(session: Session) -> Status:
    """Count studies and analyses by state. Reads whole tables: for people, not for pages."""
    as_of = database_now(session)
    studies, outcomes = _count_studies(session, as_of)
    analyses = _count_analyses(session)
    oldest_unread_at = session.execute(
        select(func.min(Study.first_received_at))
        .join(WorklistItem, WorklistItem.study_id == Study.id)
        .where(WorklistItem.listed)
    ).scalar_one()
    oldest_queued_at = session.execute(
        select(func.min(Analysis.queued_at)).where(Analysis.state == AnalysisState.QUEUED)
    ).scalar_one()
    hour, minute = as_of - timedelta(hours=1), as_of - timedelta(minutes=1)
    analysed = session.execute(
        select(func.count(), func.count().filter(Analysis.finished_at > minute)).where(
            Analysis.state == AnalysisState.DONE, Analysis.finished_at > hour
        )
    ).one()
    received = session.execute(
        select(func.count()).where(Study.last_received_at > hour, Study.first_received_at > hour)
    ).scalar_one()
    return Status(
        as_of=as_of,
        studies=studies,
        outcomes=outcomes,
        analyses=analyses,
        oldest_unread_at=oldest_unread_at,
        oldest_queued_at=oldest_queued_at,
        received_last_hour=received,
        analysed_last_hour=analysed[0],
        analysed_last_minute=analysed[1],
    )


def _count_studies(session: Session, as_of: datetime) -> tuple[dict[str, int], dict[str, int]]:
    """Count studies by what people did, and those on the list by outcome, in one look."""
    claimed = (
        select(func.count())
        .select_from(Reading)
        .join(WorklistItem, WorklistItem.study_id == Reading.study_id)
        .where(
            WorklistItem.listed,
            Reading.state == ReadingState.CLAIMED,
            Reading.claimed_until > as_of,
        )
    )
    rows = session.execute(
        select(
            WorklistItem.listed,
            WorklistItem.prior,
            WorklistItem.outcome,
            func.count().label("n"),
            claimed.scalar_subquery().label("claimed"),
        ).group_by(WorklistItem.listed, WorklistItem.prior, WorklistItem.outcome)
    ).all()
    studies: dict[str, int] = dict.fromkeys(("unread", "claimed", "read", "prior"), 0)
    outcomes = dict.fromkeys((outcome.value for outcome in Outcome), 0)
    for row in rows:
        studies["unread" if row.listed else "prior" if row.prior else "read"] += row.n
        studies["claimed"] = row.claimed
        if row.listed:
            outcomes[row.outcome.value] += row.n
    studies["unread"] -= studies["claimed"]
    return studies, outcomes


def _count_analyses(session: Session) -> dict[str, int]:
    """Count analyses by state: all, by a small index, and all but the done by one of their own."""
    few = [member for member in AnalysisState if member is not AnalysisState.DONE]
    counted = [
        select(func.count()).where(Analysis.state == member).scalar_subquery() for member in few
    ]
    every = select(func.count()).select_from(Analysis).scalar_subquery()
    total, *counts = session.execute(select(every, *counted)).one()
    analyses = {member.value: count for member, count in zip(few, counts, strict=True)}
    return {
        member.value: analyses.get(member.value, total - sum(counts)) for member in AnalysisState
    }


def read_hops(session: Session) -> tuple[Hop, ...]:
    """Measure each hop over the last results: median and 95th percentile."""
    last = (
        select(*{column.key: column for pair in HOPS.values() for column in pair}.values())
        .where(Analysis.state == AnalysisState.DONE, Analysis.finished_at.is_not(None))
        .order_by(Analysis.finished_at.desc())
        .limit(RECENT_ANALYSES)
        .subquery()
    )
    hops = []
    for name, (start, end) in HOPS.items():
        span = func.extract("epoch", last.c[end.key] - last.c[start.key])
        p50, p95, n = session.execute(
            select(
                func.percentile_cont(0.5).within_group(span),
                func.percentile_cont(0.95).within_group(span),
                func.count(span),
            )
        ).one()
        hops.append(Hop(name, p50, p95, n))
    return tuple(hops)


def read_failures(session: Session, *, limit: int = 50) -> tuple[FailedAnalysis, ...]:
    """Read the failed analyses, the newest first."""
    found = session.execute(
        select(
            Analysis.id,
            Study.study_instance_uid,
            Study.accession_number,
            Analysis.pipeline,
            Analysis.error,
            Analysis.failures,
            Analysis.losses,
            Analysis.finished_at,
        )
        .join(Study, Study.id == Analysis.study_id)
        .where(Analysis.state == AnalysisState.FAILED)
        .order_by(Analysis.finished_at.desc(), Analysis.id.desc())
        .limit(limit)
    )
    return tuple(FailedAnalysis(*row) for row in found)


def read_refusals(session: Session, *, limit: int = 20) -> tuple[tuple[str, int], ...]:
    """Count the reasons why the last images were not eligible."""
    last = (
        select(Analysis.reasons)
        .where(Analysis.state == AnalysisState.NOT_ELIGIBLE)
        .order_by(Analysis.finished_at.desc(), Analysis.id.desc())
        .limit(RECENT_ANALYSES)
        .subquery()
    )
    reason = func.unnest(last.c.reasons).label("reason")
    each = select(reason).subquery()
    found = session.execute(
        select(each.c.reason, func.count())
        .group_by(each.c.reason)
        .order_by(func.count().desc(), each.c.reason)
        .limit(limit)
    )
    return tuple((row[0], row[1]) for row in found)


def read_set_aside(session: Session, *, limit: int = 50) -> tuple[SetAsideObject, ...]:
    """Read what was kept beside the archive, the newest first."""
    found = session.execute(
        select(
            SetAside.received_at,
            SetAside.kind,
            SetAside.sop_instance_uid,
            SetAside.study_instance_uid,
            SetAside.source_ae_title,
            SetAside.source_address,
            SetAside.size_bytes,
        )
        .order_by(SetAside.id.desc())
        .limit(limit)
    )
    return tuple(SetAsideObject(*row) for row in found)


def read_models(session: Session) -> tuple[ModelRow, ...]:
    """Read the registered bundles by pipeline, the newest first."""
    found = session.execute(
        select(
            ModelVersion.pipeline,
            ModelVersion.name,
            ModelVersion.version,
            ModelVersion.state,
            ModelVersion.threshold,
            ModelVersion.bundle_sha256,
            ModelVersion.activated_at,
        ).order_by(ModelVersion.pipeline, ModelVersion.id.desc())
    )
    return tuple(ModelRow(*row) for row in found)
