"""Do work again by a person's command: retry what failed, reprocess what is finished."""

from collections.abc import Collection, Iterable

from sqlalchemy import ColumnElement, exists, select, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session, aliased

from common.lifecycle import NOW, live_version_id
from common.settings import Settings
from common.states import AnalysisState, Purpose
from common.tables import Analysis, Instance, WorklistItem
from common.worklist import derive_item


def retry(session: Session, analysis_ids: Collection[int], settings: Settings) -> list[int]:
    """Queue failed analyses again, by a person's command, their counts at zero.

    One that a later run has replaced stays as it is: its answer would count for nothing, and a
    study that is final would have work that nobody sees. So does what retention has deleted: there
    is nothing left to analyse.
    """
    _hold_items(
        session, session.scalars(select(Analysis.study_id).where(Analysis.id.in_(analysis_ids)))
    )
    rows = session.execute(
        update(Analysis)
        .where(
            Analysis.id.in_(analysis_ids),
            Analysis.state == AnalysisState.FAILED,
            ~_is_replaced(),
            ~_is_deleted(),
        )
        .values(
            state=AnalysisState.QUEUED,
            failures=0,
            losses=0,
            queued_at=NOW,
            finished_at=None,
        )
        .returning(Analysis.id, Analysis.study_id)
        .execution_options(synchronize_session=False)
    ).all()
    for study_id in sorted({row.study_id for row in rows}):
        derive_item(session, study_id, settings)
    return [row.id for row in rows]


def reprocess(session: Session, study_id: int, settings: Settings) -> list[int]:
    """Queue a new run, under today's live model, of each finished analysis of a study.

    What retention has deleted keeps the result that it has.
    """
    _hold_items(session, [study_id])
    runs = session.execute(
        select(Analysis)
        .where(Analysis.study_id == study_id, Analysis.purpose == Purpose.LIVE, ~_is_deleted())
        .order_by(Analysis.instance_id, Analysis.series_id, Analysis.pipeline, Analysis.run.desc())
        .ext(distinct_on(Analysis.instance_id, Analysis.series_id, Analysis.pipeline))
    ).scalars()
    made = []
    for latest in runs.all():
        live = live_version_id(session, latest.pipeline)
        busy = latest.state in (AnalysisState.QUEUED, AnalysisState.RUNNING)
        if busy or live is None:
            continue
        again = Analysis(
            study_id=study_id,
            instance_id=latest.instance_id,
            series_id=latest.series_id,
            pipeline=latest.pipeline,
            model_version_id=live,
            inputs_sha256=latest.inputs_sha256,
            run=latest.run + 1,
            purpose=Purpose.LIVE,
            state=AnalysisState.QUEUED,
            lane=latest.lane,
            band=latest.band,
            due_at=latest.due_at,
            received_at=latest.received_at,
            queued_at=NOW,
        )
        session.add(again)
        made.append(again)
    session.flush()
    derive_item(session, study_id, settings)
    return [item.id for item in made]


def _hold_items(session: Session, study_ids: Iterable[int]) -> None:
    """Keep retention out, which deletes only under the item's lock, and others who ask as we do."""
    session.execute(
        select(WorklistItem.study_id)
        .where(WorklistItem.study_id.in_(sorted(set(study_ids))))
        .order_by(WorklistItem.study_id)
        .with_for_update()
    )


def _is_replaced() -> ColumnElement[bool]:
    later = aliased(Analysis)
    return exists().where(
        later.study_id == Analysis.study_id,
        later.instance_id.is_not_distinct_from(Analysis.instance_id),
        later.series_id.is_not_distinct_from(Analysis.series_id),
        later.pipeline == Analysis.pipeline,
        later.purpose == Analysis.purpose,
        later.run > Analysis.run,
    )


def _is_deleted() -> ColumnElement[bool]:
    return exists().where(Instance.id == Analysis.instance_id, Instance.deleted_at.is_not(None))
