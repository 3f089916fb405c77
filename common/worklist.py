"""Derive a study's place on the worklist from its rows; derived again, it says the same."""

from datetime import datetime, timedelta

from sqlalchemy import bindparam, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from common.ranking import AnalysisView, order_priority, rank, study_outcome
from common.settings import Settings
from common.tables import (
    Analysis,
    Instance,
    Lane,
    ModelVersion,
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
    .where(Analysis.study_id == bindparam("study_id"), Analysis.purpose == Purpose.LIVE)
)


def database_now(session: Session) -> datetime:
    """Give the database's clock, the only one that instants in rows are compared with."""
    return session.execute(select(func.clock_timestamp())).scalar_one()


def is_prior(study: Study, settings: Settings) -> bool:
    """Say whether a study was acquired so long before it arrived that it is only a comparison."""
    if study.acquired_at is None:
        return False
    return study.first_received_at - study.acquired_at > timedelta(days=settings.prior_after_days)


def study_lane(study: Study, settings: Settings) -> Lane:
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
    result = study_outcome(_analysis_views(session, study_id))
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
    item.new_image_since_read = was_read and _instance_count(session, study_id) > (
        reading.instances_read or 0 if reading else 0
    )
    item.prior = is_prior(study, settings)
    item.listed = not item.prior and (not was_read or item.new_image_since_read)
    if settled is not None:
        item.settled = settled
    item.final = item.settled and not result.in_work
    item.outcome = result.outcome
    item.leading_analysis_id = result.leading.id if result.leading else None
    item.probability = result.leading.probability if result.leading else None
    item.images = result.images
    item.band, item.due_at, item.reason = place.band, place.due_at, place.reason
    item.order_priority, item.order_priority_source = priority, source
    item.ai_ranked = ai_ranking
    session.flush()
    return item


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
