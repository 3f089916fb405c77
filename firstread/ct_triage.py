"""Triage chest CT for research: ``firstread triage FOLDER --pipeline chest_ct --bundle DIR``.

For each series a raw score, and where a folder for heatmaps is named: the heatmap of all slices
with its way back to the patient (``.heatmap.npz``), and pictures of the leading slices (``.png``).
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.errors import NotEligibleError, PredictionError
from common.pixels.header import read_header, text
from common.settings import Settings
from firstread.ct_slices import PreparedSlices
from firstread.overlay import draw_overlay, write_overlay
from firstread.research_pipelines import ResearchResult, Unit
from firstread.series_search import search_files
from model.bundles import Bundle
from model.ct.faults import Remark, remark
from model.ct.heatmap_volume import heatmap_volume, write_heatmap_volume
from model.ct.hounsfield import apply_window, read_hounsfield
from model.ct.hounsfield_window import HounsfieldWindow
from model.ct.series import CtSeries, read_series
from model.eligibility import Policy, judge
from model.preprocessing import Affine

if TYPE_CHECKING:
    from model.ct.pipeline import CtPipeline, SeriesPrediction

PICTURES = 4


def load(bundle: Bundle, settings: Settings) -> "CtTriage":
    """Load a ``chest_ct`` bundle.

    Raises:
        BundleError: no ``chest_ct`` bundle, or its weights do not fit.
        ConfigurationError: the settings name a device that is not there.
    """
    from model.ct.pipeline import load_ct_pipeline

    return CtTriage(load_ct_pipeline(bundle, settings.device), settings)


class CtTriage:
    """The pipeline for chest CT as ``firstread triage`` uses it."""

    def __init__(self, pipeline: "CtPipeline", settings: Settings) -> None:
        self._pipeline = pipeline
        self._settings = settings
        self._policy = Policy(settings.unknown_age, settings.accept_secondary_capture)

    def find_units(self, paths: Sequence[Path]) -> Iterator[Unit]:
        """Group files by series; what is no DICOM beside a series is left out.

        A file that cannot be read gets a line of its own, and the rest goes on without it.
        """
        found = search_files(paths)
        yield from found.unreadable
        groups: dict[str, list[Path]] = {}
        for path, header in found.headers:
            groups.setdefault(text(header, "SeriesInstanceUID"), []).append(path)
        strays = [*groups.pop("", []), *found.others]
        for files in groups.values():
            yield Unit(_common_folder(files), tuple(files))
        named = [path for path in strays if path in paths]
        for path in named:
            yield Unit(path, (path,))
        if not groups and not named and not found.unreadable:
            for path in paths:
                yield Unit(path, tuple(strays))

    def analyse(self, unit: Unit, heatmaps: Path | None) -> ResearchResult:
        """Analyse one series and write its heatmaps.

        Raises:
            NotEligibleError: no series that the pipeline was made for.
            ImageError: a slice cannot be read.
            OSError: a file cannot be opened.
        """
        series = read_series(unit.files)
        bundle = self._pipeline.bundle
        judgement = judge(
            read_header(series.stack.slices[0].path), bundle.eligibility, self._policy
        )
        if not judgement.eligible:
            raise NotEligibleError("; ".join(judgement.reasons))
        prepared = PreparedSlices(series, bundle, self._settings)
        prediction = self._pipeline.predict(prepared)
        if prepared.affine is None:
            raise PredictionError("a series without slices")
        written: tuple[Path, ...] = ()
        if heatmaps is not None:
            stem = f"{_safe_name(unit.path)}_{series.series_instance_uid[-12:]}"
            written = _write(heatmaps / stem, series, prediction, prepared.affine, bundle)
        no_air = () if prepared.air else (remark(Remark.NO_AIR, "not HU, or not a chest?"),)
        return ResearchResult(
            prediction.score,
            prediction.insight_probability,
            series_instance_uid=series.series_instance_uid,
            measured=_measured(series, prediction),
            heatmaps=written,
            notes=(*judgement.reasons, *series.remarks, *no_air),
        )


def _write(
    stem: Path, series: CtSeries, prediction: "SeriesPrediction", affine: Affine, bundle: Bundle
) -> tuple[Path, ...]:
    """Write the heatmap of all slices, and pictures of those with the highest probability."""
    volume = Path(f"{stem}.heatmap.npz")
    each = prediction.slice_probability
    write_heatmap_volume(heatmap_volume(series, prediction.heatmap, each, affine), volume)
    written = [volume]
    window = bundle.hounsfield_window or HounsfieldWindow()
    for number in np.argsort(-each, kind="stable")[:PICTURES]:
        slice_ = series.stack.slices[number]
        grey = apply_window(read_hounsfield(slice_.path), window)
        overlay = draw_overlay(
            np.rint(grey * 65535).astype(np.uint16),
            prediction.heatmap[number],
            affine,
            size_px=(slice_.rows, slice_.columns),
            caption=f"research only: slice {number + 1} of {len(series)}",
        )
        picture = Path(f"{stem}_slice{number + 1:04d}.png")
        write_overlay(overlay, picture)
        written.append(picture)
    return tuple(written)


def _measured(series: CtSeries, prediction: "SeriesPrediction") -> dict[str, float | int | str]:
    first = series.stack.slices[0]
    return {
        "slices": len(series),
        "rows_px": first.rows,
        "columns_px": first.columns,
        "spacing_mm": round(series.stack.spacing_mm, 4),
        "leading_slice": int(np.argmax(prediction.slice_probability)) + 1,
        "leading_slice_probability": round(float(prediction.slice_probability.max()), 4),
    }


def _common_folder(files: Sequence[Path]) -> Path:
    """Name a series by the folder that holds all of it; a single file by itself."""
    if len(files) == 1:
        return files[0]
    folder = files[0].parent
    while not all(path.is_relative_to(folder) for path in files):
        folder = folder.parent
    return folder


def _safe_name(path: Path) -> str:
    return re.sub(r"[^\w.-]", "_", path.resolve().name)[:60]
