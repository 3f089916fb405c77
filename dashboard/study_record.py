"""One study with its images, the newest answer for each, as the study page shows them."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import case, func, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from common.states import AnalysisState, Outcome, Purpose
from common.tables import Analysis, Instance, ModelVersion, Series, Study, WorklistItem
from dashboard.queries import find_row, prior_rows
from dashboard.worklist_row import WorklistRow

IMAGES_SHOWN = 60  # a CT study has more objects than anybody wants buttons for
NO_LOCALISATION = "no localisation supports the flag"  # the worker's reason, word for word


@dataclass(frozen=True, eq=False)
class Heatmap:
    """Where the model looked.

    Attributes:
        values: float32 (h, w) in [0, 1], an absolute scale.
        affine: (a, b, c, d, e, f); unit coordinates (u, v) to image pixels,
            x = a·u + b·v + c, y = d·u + e·v + f.
    """

    values: NDArray[np.float32]
    affine: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """One object of a study and what one pipeline made of it."""

    instance_id: int
    sop_instance_uid: str
    modality: str
    view_position: str
    received_at: datetime
    analysis_id: int | None
    pipeline: str
    model: str  # name and version, empty before one was chosen
    state: AnalysisState | None
    outcome: Outcome | None
    probability: float | None
    threshold: float | None
    reasons: tuple[str, ...]
    error: str | None
    rows: int | None
    columns: int | None
    rendition: str | None  # below the archive's folder
    deleted: bool  # by retention
    heatmap: Heatmap | None
    leading: bool

    @property
    def unsupported_flag(self) -> bool:
        """Whether the heatmap contradicts the flag."""
        return NO_LOCALISATION in self.reasons


@dataclass(frozen=True, eq=False)
class StudyRecord:
    """A study, its images in order, the leading one first, and the patient's other studies."""

    row: WorklistRow
    images: tuple[ImageRecord, ...]
    priors: tuple[WorklistRow, ...]
    instances: int  # objects received, whatever their kind

    @property
    def pictures(self) -> int:
        """How many of the objects shown have pixels that were read, whatever became of them."""
        return len({image.instance_id for image in self.images if image.rows is not None})

    def image(self, instance_id: int | None) -> ImageRecord | None:
        """Give the image asked for, else the leading one, else the first that has a picture."""
        for image in self.images:
            if image.instance_id == instance_id:
                return image
        pictured = [image for image in self.images if image.rendition]
        return next(iter(pictured or self.images), None)


def read_study(session: Session, study_instance_uid: str) -> StudyRecord | None:
    """Read a study in six statements, or None if there is no such study."""
    row = find_row(session, study_instance_uid)
    if row is None:
        return None
    images = read_images(session, row.study_id)
    return StudyRecord(
        row=row,
        images=images,
        priors=prior_rows(session, row.study_id),
        instances=_count_instances(session, row.study_id),
    )


def read_images(session: Session, study_id: int) -> tuple[ImageRecord, ...]:
    """Read a study's objects, each with the newest answer, or the newest question if none.

    The leading image comes first, then what has a picture; at most IMAGES_SHOWN.
    """
    answered = case(
        (Analysis.state.in_((AnalysisState.DONE, AnalysisState.NOT_ELIGIBLE)), 0), else_=1
    )
    newest = (
        select(Analysis)
        .where(Analysis.study_id == study_id, Analysis.purpose == Purpose.LIVE)
        .order_by(
            Analysis.instance_id,
            Analysis.pipeline,
            answered,
            Analysis.run.desc(),
            Analysis.id.desc(),
        )
        .ext(distinct_on(Analysis.instance_id, Analysis.pipeline))
        .subquery()
    )
    found = session.execute(
        select(
            Instance.id.label("instance_id"),
            Instance.sop_instance_uid,
            Instance.view_position,
            Instance.received_at.label("instance_received_at"),
            Instance.deleted_at.label("instance_deleted_at"),
            Series.modality,
            newest,
            ModelVersion.name.label("model_name"),
            ModelVersion.version.label("model_version"),
            ModelVersion.threshold,
            WorklistItem.leading_analysis_id,
        )
        .join(Series, Series.id == Instance.series_id)
        .join(Study, Study.id == Series.study_id)
        .outerjoin(newest, newest.c.instance_id == Instance.id)
        .outerjoin(ModelVersion, ModelVersion.id == newest.c.model_version_id)
        .outerjoin(WorklistItem, WorklistItem.study_id == Study.id)
        .where(Study.id == study_id)
        .order_by(
            (newest.c.id == WorklistItem.leading_analysis_id).desc().nulls_last(),
            newest.c.rendition.is_(None),
            Series.id,
            Instance.instance_number.nulls_last(),
            Instance.id,
            newest.c.pipeline,
        )
        .limit(IMAGES_SHOWN)
    ).all()
    return tuple(
        ImageRecord(
            instance_id=row.instance_id,
            sop_instance_uid=row.sop_instance_uid,
            modality=row.modality,
            view_position=row.view_position,
            received_at=row.instance_received_at,
            analysis_id=row.id,
            pipeline=row.pipeline or "",
            model=f"{row.model_name} {row.model_version}" if row.model_name else "",
            state=row.state,
            outcome=row.outcome,
            probability=row.probability,
            threshold=row.threshold,
            reasons=tuple(row.reasons or ()),
            error=row.error,
            rows=row.rows,
            columns=row.columns,
            rendition=row.rendition,
            deleted=row.instance_deleted_at is not None,
            heatmap=_heatmap(
                row.heatmap, row.heatmap_rows, row.heatmap_columns, row.heatmap_affine
            ),
            leading=row.id is not None and row.id == row.leading_analysis_id,
        )
        for row in found
    )


def _count_instances(session: Session, study_id: int) -> int:
    return session.execute(
        select(func.count())
        .select_from(Instance)
        .join(Series, Series.id == Instance.series_id)
        .where(Series.study_id == study_id)
    ).scalar_one()


def _heatmap(
    grid: bytes | None, rows: int | None, columns: int | None, affine: list[float] | None
) -> Heatmap | None:
    """Read a stored grid; one that is not what its row says, or not finite, is not shown."""
    if grid is None or rows is None or columns is None or affine is None or len(affine) != 6:
        return None
    if len(grid) != rows * columns * 2 or not len(grid):
        return None
    values = np.frombuffer(grid, dtype="<f2").astype(np.float32).reshape(rows, columns)
    if not np.isfinite(values).all():
        return None
    return Heatmap(np.clip(values, 0, 1), tuple(affine))
