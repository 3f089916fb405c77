"""Triage whole-slide images for research: ``firstread triage FOLDER --pipeline slide``.

For each slide a score; where a folder for heatmaps is named, the heatmap as a pyramid that viewers
lay over the slide (``.heatmap.tiff``), and a picture of it over the slide (``.png``).
"""

import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from pydicom.uid import VLWholeSlideMicroscopyImageStorage

from common.errors import NotEligibleError
from common.pixels.header import read_header, text
from common.settings import Settings
from firstread.overlay import draw_colour_overlay, write_overlay
from firstread.research_pipelines import ResearchResult, Unit
from firstread.series_search import search_files
from model.bundles import Bundle
from model.slide.pipeline import SlidePipeline, SlideReading, load_slide_pipeline
from model.slide.stitching import RawMap, build_levels, write_pyramid
from model.slide.whole_slide import WholeSlide, open_slide

_OVERLAY_CELLS = 1024
_OVERLAY_PX = 768


def load(bundle: Bundle, settings: Settings) -> "SlideTriage":
    """Load a slide bundle.

    Raises:
        BundleError: no slide bundle, or its weights do not fit.
        ConfigurationError: the settings name a device that is not there.
    """
    return SlideTriage(load_slide_pipeline(bundle, settings.device))


class SlideTriage:
    """The slide pipeline as ``firstread triage`` uses it."""

    def __init__(self, pipeline: SlidePipeline) -> None:
        self._pipeline = pipeline

    def find_units(self, paths: Sequence[Path]) -> Iterator[Unit]:
        """Group files by series; the levels, label and overview of a slide are one series.

        In a folder only whole-slide images count; a folder without any, and a file that is named
        and is none, are answered for all the same. A file that cannot be read gets a line of its
        own, and the rest goes on without it.
        """
        for path in paths:
            found = search_files([path])
            yield from found.unreadable
            by_series: dict[str, list[Path]] = {}
            for file, header in found.headers:
                if text(header, "SOPClassUID") == VLWholeSlideMicroscopyImageStorage:
                    series = text(header, "SeriesInstanceUID")
                    by_series.setdefault(series, []).append(file)
            folders = Counter(files[0].parent for files in by_series.values())
            for files in by_series.values():
                own_folder = files[0].parent if folders[files[0].parent] == 1 else files[0]
                yield Unit(path if len(by_series) == 1 else own_folder, tuple(files))
            if not by_series and not found.unreadable:
                yield Unit(path, ())

    def analyse(self, unit: Unit, heatmaps: Path | None) -> ResearchResult:
        """Analyse one slide and write its heatmaps.

        Raises:
            NotEligibleError: no slide that the pipeline was made for.
            FirstreadError: the slide is broken.
            OSError: a named file cannot be read.
        """
        if not unit.files:
            raise NotEligibleError(_why_no_slide(unit.path))
        with (
            open_slide(unit.files) as slide,
            tempfile.TemporaryDirectory(prefix="firstread-slide-") as scratch,
        ):
            reading = self._pipeline.read(slide, Path(scratch) / "heatmap.raw")
            levels = build_levels(reading.heatmap)
            written = ()
            if heatmaps is not None:
                stem = heatmaps / f"{_safe_name(unit.path)}_{slide.series_instance_uid[-12:]}"
                written = self._write(stem, slide, reading, levels)
            return ResearchResult(
                reading.score,
                reading.insight_probability,
                series_instance_uid=slide.series_instance_uid,
                measured=_measured(slide, reading),
                heatmaps=written,
                notes=slide.notes,
            )

    def _write(
        self, stem: Path, slide: WholeSlide, reading: SlideReading, levels: list[RawMap]
    ) -> tuple[Path, ...]:
        bundle = self._pipeline.bundle
        pyramid, picture = Path(f"{stem}.heatmap.tiff"), Path(f"{stem}.png")
        description: dict[str, object] = {
            "what": "INSIGHT heatmap, research only: 0 to 1 on an absolute scale, not calibrated",
            "bundle": f"{bundle.name} {bundle.version}",
            "bundle_sha256": bundle.sha256,
            "series_instance_uid": slide.series_instance_uid,
            "score": reading.score,
            "cell_um": reading.cell_um,
            "cell_base_px": [reading.cell_um / side for side in slide.base.mpp_um],
            "coarser_levels": "greatest of each 2 x 2 cells",
        }
        write_pyramid(levels, pyramid, cell_um=reading.cell_um, description=description)
        small = next(level for level in levels if max(level.shape) <= _OVERLAY_CELLS)
        cells = small.read_rows(0, small.shape[0]).astype(np.float32)
        cell_um = reading.cell_um * small.reduction
        affine = (cells.shape[1] * cell_um, 0.0, 0.0, 0.0, cells.shape[0] * cell_um, 0.0)
        # A small slide is drawn larger than it needs to be to find tissue on it.
        finer_um = max(slide.extent_um) / _OVERLAY_PX
        small_slide = finer_um < self._pipeline.tiling.picture_mpp_um
        overlay = draw_colour_overlay(
            slide.read_picture(finer_um) if small_slide else reading.plan.picture,
            cells,
            affine,
            size_px=slide.extent_um,
            caption="research only; outlined: looked at",
        )
        write_overlay(overlay, picture)
        return pyramid, picture


def _measured(slide: WholeSlide, reading: SlideReading) -> dict[str, float | int | str]:
    plan = reading.plan
    tall, wide = slide.extent_um
    return {
        "tiles": plan.grid.tiles,
        "tissue_mm2": round(float(plan.tissue.mean()) * tall * wide / 1e6, 3),
        "rows_px": slide.base.size_px[0],
        "columns_px": slide.base.size_px[1],
        "read_at_um_per_px": round(plan.level.mpp_um[0], 4),
        "cell_um": round(reading.cell_um, 3),
    }


def _why_no_slide(path: Path) -> str:
    """Say why a path gave no slide.

    Raises:
        FirstreadError: a file that is no DICOM.
        OSError: a file that cannot be opened.
    """
    if path.is_dir():
        return "no DICOM whole-slide image in this folder"
    stated = read_header(path)
    return f"not a whole-slide image: {text(stated, 'Modality') or 'modality not stated'}"


def _safe_name(path: Path) -> str:
    return re.sub(r"[^\w.-]", "_", path.resolve().name)[:60]
