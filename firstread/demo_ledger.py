"""What the ledger says of one run's studies: read for the demo's table and for its verdict."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from common.states import AnalysisState, OrderPriority, Outcome, PrioritySource
from common.tables import Analysis, Instance, Series, Study, WorklistItem


@dataclass(frozen=True)
class SeenObject:
    """One instance of the run and its analysis."""

    sop_instance_uid: str
    study_instance_uid: str
    state: AnalysisState
    outcome: Outcome | None
    probability: float | None
    reasons: tuple[str, ...]
    error: str | None
    received_at: datetime
    finished_at: datetime | None
    peak: "Peak | None"

    @property
    def in_work(self) -> bool:
        """Whether its analysis has still to end."""
        return self.state in (AnalysisState.QUEUED, AnalysisState.RUNNING)


@dataclass(frozen=True)
class Peak:
    """Where a heatmap is highest, in pixels of the image; margin_px: half a cell."""

    x: float
    y: float
    value: float
    margin_px: float


@dataclass(frozen=True)
class SeenStudy:
    """One study's place on the worklist."""

    study_instance_uid: str
    outcome: Outcome
    band: int
    listed: bool
    prior: bool
    final: bool
    order_priority: OrderPriority
    priority_source: PrioritySource


@dataclass(frozen=True)
class Seen:
    """All that the ledger holds of a run."""

    objects: tuple[SeenObject, ...]
    studies: dict[str, SeenStudy]

    @property
    def in_work(self) -> int:
        """How many analyses have still to end."""
        return sum(one.in_work for one in self.objects)


def read_run(
    session: Session,
    *,
    study_instance_uids: Collection[str] = (),
    sop_instance_uids: Collection[str] = (),
) -> Seen:
    """Read the newest analysis of each of these instances, or of these studies', and the items."""
    rows = session.execute(
        select(Instance.sop_instance_uid, Study.study_instance_uid, Analysis)
        .join(Series, Series.id == Instance.series_id)
        .join(Study, Study.id == Series.study_id)
        .join(Analysis, Analysis.instance_id == Instance.id)
        .where(
            or_(
                Study.study_instance_uid.in_(study_instance_uids),
                Instance.sop_instance_uid.in_(sop_instance_uids),
            )
        )
        .order_by(Instance.id, Analysis.run)
    )
    objects = {
        uid: SeenObject(
            sop_instance_uid=uid,
            study_instance_uid=study_uid,
            state=analysis.state,
            outcome=analysis.outcome,
            probability=analysis.probability,
            reasons=tuple(analysis.reasons),
            error=analysis.error,
            received_at=analysis.received_at,
            finished_at=analysis.finished_at,
            peak=find_peak(analysis),
        )
        for uid, study_uid, analysis in rows
    }
    items = session.execute(
        select(Study.study_instance_uid, WorklistItem)
        .join(WorklistItem, WorklistItem.study_id == Study.id)
        .where(Study.study_instance_uid.in_({one.study_instance_uid for one in objects.values()}))
    )
    studies = {
        uid: SeenStudy(
            study_instance_uid=uid,
            outcome=item.outcome,
            band=item.band,
            listed=item.listed,
            prior=item.prior,
            final=item.final,
            order_priority=item.order_priority,
            priority_source=item.order_priority_source,
        )
        for uid, item in items
    }
    return Seen(tuple(objects.values()), studies)


def find_peak(analysis: Analysis) -> Peak | None:
    """Find the centre of the highest cell of an analysis's heatmap; None if it has none."""
    rows, columns, affine = analysis.heatmap_rows, analysis.heatmap_columns, analysis.heatmap_affine
    if not (analysis.heatmap and rows and columns and affine):
        return None
    grid = np.frombuffer(analysis.heatmap, dtype=np.float16).reshape(rows, columns)
    row, column = divmod(int(grid.argmax()), columns)
    u, v = (column + 0.5) / columns, (row + 0.5) / rows
    a, b, c, d, e, f = affine
    half_cell = max(abs(a) / columns, abs(e) / rows) / 2
    return Peak(a * u + b * v + c, d * u + e * v + f, float(grid[row, column]), half_cell)
