"""Derive a study's place on the worklist from its rows; derived again, it says the same."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import and_, bindparam, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from common.ranking import AnalysisView, StudyOutcome, order_priority, rank, study_outcome
from common.settings import Settings
from common.tables import (
    Analysis,
    AnalysisState,
    Instance,
    Lane,
    ModelVersion,
    OrderPriority,
    Outcome,
    Purpose,
    Reading,
    ReadingState,
    Series,
    Site,
    Study,
    WorklistItem,
)

SITE_ID = 1

# Built once: these run for every result of every image, and building costs as much as running.
_LOCKED_ITEM = (
    select(WorklistItem)
    .where(WorklistItem.study_id == bindparam("study_id"))
    .with_for_update()
    .execution_options(populate_existing=True)
)
_FACTS = (
    select(Study, Reading, Site.ai_ranking, func.clock_timestamp())
    .outerjoin(Reading, Reading.study_id == Study.id)
    .join(Site, Site.id == SITE_ID)
    .where(Study.id == bindparam("study_id"))
    .execution_options(populate_existing=True)
)
_ANALYSES = (
    select(
        Analysis.id,
        Analysis.instance_id,
        Analysis.series_id,
        Analysis.pipeline,
        Analysis.run,
        Analysis.state,
        Analysis.outcome,
        Analysis.probability,
        ModelVersion.threshold,
    )
    .outerjoin(ModelVersion, ModelVersion.id == Analysis.model_version_id)
    .where(
        Analysis.study_id == bindparam("study_id"),
        Analysis.purpose == Purpose.LIVE,
        # A first run that found nothing to do changes no outcome: a scan has a thousand of them.
        ~and_(Analysis.state == AnalysisState.NOT_ELIGIBLE, Analysis.run == 0),
    )
)


class StudyFacts(NamedTuple):
    """What a study's place follows from, for whoever has no row of the ORM at hand."""

    acquired_at: datetime | None
    first_received_at: datetime
    requested_procedure_priority: str
    study_priority_id: str
    source_ae_title: str


class ReadingFacts(NamedTuple):
    """What people did that a study's place follows from."""

    state: ReadingState
    instances_read: int | None
    order_priority: OrderPriority | None


def database_now(session: Session) -> datetime:
    """Give the database's clock, the only one that instants in rows are compared with."""
    return session.execute(select(func.clock_timestamp())).scalar_one()


def is_prior(study: Study | StudyFacts, settings: Settings) -> bool:
    """Say whether a study was acquired so long before it arrived that it is only a comparison."""
    if study.acquired_at is None:
        return False
    return study.first_received_at - study.acquired_at > timedelta(days=settings.prior_after_days)


def study_lane(study: Study | StudyFacts, settings: Settings) -> Lane:
    """Choose the queue for a study's analyses: priors wait behind what is to be read today."""
    return Lane.BACKFILL if is_prior(study, settings) else Lane.CURRENT


def derive_item(
    session: Session, study_id: int, settings: Settings, *, settled: bool | None = None
) -> WorklistItem:
    """Write the study's worklist item anew, under a lock so that the last writer sees all.

    Args:
        settled: True when upkeep found the study quiet, False when an image has just arrived,
            None to leave it as it stands.

    The item is locked before the analyses are read: of two results of one study that commit
    together, the second waits here and then sees the first.
    """
    item = _locked_item(session, study_id)
    study, reading, ai_ranking, now = session.execute(_FACTS, {"study_id": study_id}).one()
    values = derive_values(
        study,
        reading,
        study_outcome(_analysis_views(session, study_id)),
        instances=lambda: _instance_count(session, study_id),
        settled=item.settled if settled is None else settled,
        ai_ranking=ai_ranking,
        now=now,
        settings=settings,
    )
    for name, value in values.items():
        setattr(item, name, value)
    session.flush()
    return item


def derive_values(
    study: Study | StudyFacts,
    reading: Reading | ReadingFacts | None,
    result: StudyOutcome,
    *,
    instances: Callable[[], int],
    settled: bool,
    ai_ranking: bool,
    now: datetime,
    settings: Settings,
) -> dict[str, Any]:
    """Say what follows for a study's worklist item: every column but its key.

    Args:
        study: The study as it stands.
        reading: What people did with it; None: nobody touched it.
        result: What its live analyses come to, read under the item's lock.
        instances: Counts the study's objects; asked only of a study that was read.
        settled: Whether upkeep found the study quiet, and nothing came since.
        ai_ranking: Whether the site lets the AI rank.
        now: The database's clock.
        settings: What the site decided.
    """
    priority, source = order_priority(
        by_person=reading.order_priority if reading else None,
        requested_procedure_priority=study.requested_procedure_priority,
        study_priority_id=study.study_priority_id,
        source_ae_title=study.source_ae_title,
        settings=settings,
    )
    place = rank(
        first_received_at=study.first_received_at,
        now=now,
        priority=priority,
        source=source,
        result=result,
        ai_ranking=ai_ranking,
        settings=settings,
    )
    was_read = reading is not None and reading.state is ReadingState.READ
    is_new_since = was_read and instances() > (reading.instances_read or 0 if reading else 0)
    prior = is_prior(study, settings)
    return {
        "new_image_since_read": is_new_since,
        "prior": prior,
        "listed": not prior and (not was_read or is_new_since),
        "settled": settled,
        "final": settled and not result.in_work,
        "outcome": result.outcome,
        "leading_analysis_id": result.leading.id if result.leading else None,
        "probability": result.leading.probability if result.leading else None,
        "images": result.images,
        "band": place.band,
        "due_at": place.due_at,
        "reason": place.reason,
        "order_priority": priority,
        "order_priority_source": source,
        "ai_ranked": ai_ranking,
    }


def _locked_item(session: Session, study_id: int) -> WorklistItem:
    """Lock the study's item; make it first if this is the study's first object."""
    item = session.execute(_LOCKED_ITEM, {"study_id": study_id}).scalar_one_or_none()
    if item is not None:
        return item
    blank = {
        "study_id": study_id,
        "listed": False,
        "prior": False,
        "outcome": Outcome.PENDING,
        "images": 0,
        "band": 2,
        "due_at": session.get_one(Study, study_id).first_received_at,
        "order_priority": "routine",
        "order_priority_source": "default",
        "reason": "",
        "ai_ranked": True,
    }
    session.execute(insert(WorklistItem).values(blank).on_conflict_do_nothing())
    return session.execute(_LOCKED_ITEM, {"study_id": study_id}).scalar_one()


def _analysis_views(session: Session, study_id: int) -> list[AnalysisView]:
    rows = session.execute(_ANALYSES, {"study_id": study_id})
    return [
        AnalysisView(
            id=row.id,
            unit=(row.instance_id, row.series_id, row.pipeline),
            run=row.run,
            state=row.state,
            outcome=row.outcome,
            probability=row.probability,
            threshold=row.threshold,
        )
        for row in rows
    ]


def _instance_count(session: Session, study_id: int) -> int:
    return session.execute(
        select(func.count()).select_from(Instance).join(Series).where(Series.study_id == study_id)
    ).scalar_one()
