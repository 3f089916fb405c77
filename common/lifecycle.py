"""The life of an analysis, one function a transition, each guarded by the state it starts from.

    queued ──claim──▶ running ──finish──▶ done
      ▲                  │ ├──refuse──▶ not_eligible
      └── fail, expire ──┘ └──fail (for the last time)──▶ failed ──retry (a person)──▶ queued

Every claim raises ``attempt``, the fencing token. Renew, finish, refuse and fail match the row
only while it is running under that attempt; a result that matches nothing is discarded and
counted. Leases live on the database's clock.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import Table, and_, case, func, literal, or_, select, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.orm import Session

from common.settings import Settings
from common.tables import (
    Analysis,
    AnalysisState,
    Instance,
    ModelState,
    ModelVersion,
    Outcome,
    Purpose,
    WorklistItem,
)
from common.worklist import derive_item

NOW = func.clock_timestamp()

# The table, not the class: an update through the class costs a quarter more on every result.
_ROWS = cast(Table, Analysis.__table__)
_INSTANCES = cast(Table, Instance.__table__)


@dataclass(frozen=True)
class Claim:
    """One analysis that this worker holds until its lease ends, and what it needs to do it."""

    analysis_id: int
    attempt: int
    study_id: int
    pipeline: str
    model_version_id: int
    band: int
    due_at: datetime
    losses: int
    path: str  # of the object, below the archive's folder
    sha256: bytes  # of its data set
    sop_instance_uid: str
    received_at: datetime  # these three by the database's clock
    queued_at: datetime
    claimed_at: datetime


@dataclass(frozen=True)
class Result:
    """What the model said of one image, calibrated and judged.

    heatmap: float16, row by row, (heatmap_rows, heatmap_columns), absolute scale 0 to 1.
    heatmap_affine: (a, b, c, d, e, f), unit coordinates of the grid to image pixels:
        x = a·u + b·v + c, y = d·u + e·v + f.
    """

    score: float
    probability: float
    outcome: Outcome
    reasons: Sequence[str]
    insight_probability: float
    heatmap: bytes
    heatmap_rows: int
    heatmap_columns: int
    heatmap_affine: Sequence[float]
    rows: int
    columns: int
    rendition: str | None
    decoded_at: datetime
    predicted_at: datetime


def claim(
    session: Session,
    *,
    worker: str,
    model_version_ids: Collection[int],
    lease_s: float,
    oldest: bool = False,
) -> Claim | None:
    """Take the most urgent queued analysis, or the oldest, that a loaded model can do.

    Returns:
        None when nothing is queued for these model versions.
    """
    order = (
        (Analysis.queued_at, Analysis.id)
        if oldest
        else (Analysis.lane, Analysis.band, Analysis.due_at, Analysis.id)
    )
    chosen = (
        select(Analysis.id)
        .where(
            Analysis.state == AnalysisState.QUEUED,
            Analysis.model_version_id.in_(model_version_ids),
            Analysis.instance_id.is_not(None),
        )
        .order_by(*order)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    row = session.execute(
        update(_ROWS)
        .where(_ROWS.c.id == chosen, _ROWS.c.instance_id == _INSTANCES.c.id)
        .values(
            state=AnalysisState.RUNNING,
            attempt=_ROWS.c.attempt + 1,
            worker=worker,
            claimed_at=NOW,
            lease_until=NOW + timedelta(seconds=lease_s),
        )
        .returning(
            _ROWS.c.id,
            _ROWS.c.attempt,
            _ROWS.c.study_id,
            _ROWS.c.pipeline,
            _ROWS.c.model_version_id,
            _ROWS.c.band,
            _ROWS.c.due_at,
            _ROWS.c.losses,
            _ROWS.c.received_at,
            _ROWS.c.queued_at,
            _ROWS.c.claimed_at,
            _INSTANCES.c.path,
            _INSTANCES.c.sha256,
            _INSTANCES.c.sop_instance_uid,
        )
    ).one_or_none()
    if row is None:
        return None
    return Claim(
        analysis_id=row.id,
        attempt=row.attempt,
        study_id=row.study_id,
        pipeline=row.pipeline,
        model_version_id=row.model_version_id,
        band=row.band,
        due_at=row.due_at,
        losses=row.losses,
        path=row.path,
        sha256=row.sha256,
        sop_instance_uid=row.sop_instance_uid,
        received_at=row.received_at,
        queued_at=row.queued_at,
        claimed_at=row.claimed_at,
    )


def renew(session: Session, claims: Collection[Claim], lease_s: float) -> set[int]:
    """Prolong the leases of claims at work. Returns the analysis ids that are still ours."""
    if not claims:
        return set()
    ours = or_(
        *(
            and_(Analysis.id == item.analysis_id, Analysis.attempt == item.attempt)
            for item in claims
        )
    )
    return set(
        session.execute(
            update(Analysis)
            .where(Analysis.state == AnalysisState.RUNNING, ours)
            .values(lease_until=NOW + timedelta(seconds=lease_s))
            .returning(Analysis.id)
            .execution_options(synchronize_session=False)
        ).scalars()
    )


def finish(session: Session, claimed: Claim, result: Result, settings: Settings) -> bool:
    """Store a result and the study's new place. False, and nothing stored, if no longer ours."""
    values = {
        "state": AnalysisState.DONE,
        "score": result.score,
        "probability": result.probability,
        "outcome": result.outcome,
        "reasons": list(result.reasons),
        "insight_probability": result.insight_probability,
        "heatmap": result.heatmap,
        "heatmap_rows": result.heatmap_rows,
        "heatmap_columns": result.heatmap_columns,
        "heatmap_affine": list(result.heatmap_affine),
        "rows": result.rows,
        "columns": result.columns,
        "rendition": result.rendition,
        "decoded_at": result.decoded_at,
        "predicted_at": result.predicted_at,
        "finished_at": NOW,
        "error": None,
    }
    return _leave_running(session, claimed, values, settings)


def refuse(
    session: Session,
    claimed: Claim,
    reasons: Sequence[str],
    settings: Settings,
    *,
    rendition: str | None = None,
    rows: int | None = None,
    columns: int | None = None,
) -> bool:
    """Record that the pipeline does not apply to this image, and why. That is a result too."""
    values = {
        "state": AnalysisState.NOT_ELIGIBLE,
        "reasons": list(reasons),
        "rendition": rendition,
        "rows": rows,
        "columns": columns,
        "finished_at": NOW,
        "error": None,
    }
    return _leave_running(session, claimed, values, settings)


def fail(
    session: Session, claimed: Claim, error: str, settings: Settings, *, for_good: bool = False
) -> bool:
    """Count an image's own error: queued again, or failed when it was the last allowed one.

    Args:
        for_good: The image ran alone in its own process and killed it; trying again is useless.
    """
    last = or_(literal(for_good), Analysis.failures + 1 >= settings.max_failures)
    values = {
        "state": case((last, AnalysisState.FAILED.value), else_=AnalysisState.QUEUED.value),
        "failures": Analysis.failures + 1,
        "error": error[:2000],
        "finished_at": case((last, NOW), else_=None),
    }
    return _leave_running(session, claimed, values, settings)


def expire_leases(session: Session, *, limit: int = 500) -> list[int]:
    """Return analyses whose worker stopped renewing to the queue. Returns their ids.

    A lost lease counts in ``losses`` and never in ``failures``: a worker's death says nothing
    about the image. Rows change in UID order of nothing but themselves; their studies' items
    stay as they are, for queued and running are the same to a reader.
    """
    lost = (
        select(Analysis.id)
        .where(Analysis.state == AnalysisState.RUNNING, Analysis.lease_until < NOW)
        .order_by(Analysis.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return list(
        session.execute(
            update(Analysis)
            .where(Analysis.id.in_(lost))
            .values(
                state=AnalysisState.QUEUED,
                losses=Analysis.losses + 1,
                lease_until=None,
                worker=None,
            )
            .returning(Analysis.id)
            .execution_options(synchronize_session=False)
        ).scalars()
    )


def live_version_id(session: Session, pipeline: str) -> int | None:
    """Find the model version that new work of a pipeline is done under."""
    return session.execute(
        select(ModelVersion.id).where(
            ModelVersion.pipeline == pipeline, ModelVersion.state == ModelState.LIVE
        )
    ).scalar_one_or_none()


def activate(session: Session, version: ModelVersion) -> int:
    """Make a registered version the live one of its pipeline and re-point what is queued.

    The caller commits: old version retired, new live, queued rows re-pointed, all or nothing.
    Running rows finish under the version that they were claimed with.

    Returns:
        How many queued rows were re-pointed.
    """
    session.execute(
        select(ModelVersion.id)
        .where(ModelVersion.pipeline == version.pipeline)
        .order_by(ModelVersion.id)
        # Not against those who point at a version: who registers an object holds its study's queued
        # rows, which are re-pointed below, while Postgres checks that the version is there.
        .with_for_update(key_share=True)
    )
    session.execute(
        update(ModelVersion)
        .where(
            ModelVersion.pipeline == version.pipeline,
            ModelVersion.state == ModelState.LIVE,
            ModelVersion.id != version.id,
        )
        .values(state=ModelState.RETIRED)
    )
    session.execute(
        update(ModelVersion)
        .where(ModelVersion.id == version.id)
        .values(state=ModelState.LIVE, activated_at=NOW)
    )
    # Whoever changes several queued rows takes them in the order of their ids: no deadlocks.
    stale = (
        select(Analysis.id)
        .where(
            Analysis.pipeline == version.pipeline,
            Analysis.state == AnalysisState.QUEUED,
            Analysis.purpose == Purpose.LIVE,
            Analysis.model_version_id.is_distinct_from(version.id),
        )
        .order_by(Analysis.id)
        .with_for_update()
    )
    changed = session.execute(
        update(Analysis)
        .where(Analysis.id.in_(stale))
        .values(model_version_id=version.id)
        .execution_options(synchronize_session=False)
    )
    return _count(changed)


def requeue_order(session: Session, item: WorklistItem) -> None:
    """Let what is queued of a study follow its study's new band and due time."""
    moved = (
        select(Analysis.id)
        .where(
            Analysis.study_id == item.study_id,
            Analysis.state == AnalysisState.QUEUED,
            or_(Analysis.band != item.band, Analysis.due_at != item.due_at),
        )
        .order_by(Analysis.id)
        .with_for_update()
    )
    session.execute(
        update(Analysis)
        .where(Analysis.id.in_(moved))
        .values(band=item.band, due_at=item.due_at)
        .execution_options(synchronize_session=False)
    )


def _leave_running(
    session: Session, claimed: Claim, values: dict[str, Any], settings: Settings
) -> bool:
    changed = session.execute(
        update(_ROWS)
        .where(
            _ROWS.c.id == claimed.analysis_id,
            _ROWS.c.state == AnalysisState.RUNNING,
            _ROWS.c.attempt == claimed.attempt,
        )
        .values(lease_until=None, **values)
    )
    if _count(changed) == 1:
        derive_item(session, claimed.study_id, settings)
        return True
    session.execute(
        update(Analysis)
        .where(Analysis.id == claimed.analysis_id)
        .values(late_results=Analysis.late_results + 1)
        .execution_options(synchronize_session=False)
    )
    return False


def _count(result: Any) -> int:  # noqa: ANN401 - Session.execute is typed too widely
    return result.rowcount if isinstance(result, CursorResult) else 0
