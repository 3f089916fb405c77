"""Turn the runs of an ablation into a table, a decision, JSON and a picture."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from common.pixels.image_files import read_image_file
from model.evaluation.bootstrap import cluster_bootstrap
from model.evaluation.discrimination import auc
from model.evaluation.localisation_picture import (
    Column,
    draw_grid,
    one_image_a_finding,
    write_picture,
)
from model.evaluation.localisation_table import Interval, LocalisationReport
from model.evaluation.localisation_table import localisation_report as measure_all
from model.evaluation.localisation_text import localisation_text
from model.preprocessing import PreprocessingSpec, resize_and_stretch
from model.training.ablation import AblationConfig, AblationSet, ArmRun, Say
from model.training.ablation_heads import ARMS, REFERENCE
from model.training.localisation_methods import (
    NOTES,
    ImageMaps,
    control_runs,
    of_cases,
    own_maps,
    shown_additive,
)

MULTI_SCALE = "insight_two_stages"
IN_PICTURE = ("insight", "insight_two_stages", "detection_only", "gap_cam", "pcam", "abmil")
PICTURED = 7
SHOWN_PX = 464
DRAWS = 500
RESULT, TABLE, PICTURE = "ablation.json", "ablation.md", "maps.png"


class Classified(BaseModel):
    """How an arm ranks the cases of val: AUC of each seed, and its mean against the reference's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    parameters: int
    auc: tuple[float, ...]
    difference: Interval | None

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return float(np.mean(self.auc))


class AblationReport(BaseModel):
    """All that an ablation found; the text states the rule behind ``multi_scale_wins``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: AblationConfig
    train_images: int
    val_images: int
    additive_error: float
    triage_val_auc: float
    arms: tuple[Classified, ...]
    localisation: LocalisationReport
    multi_scale_wins: bool


def report_ablation(
    data: AblationSet, runs: dict[str, list[ArmRun]], config: AblationConfig, say: Say
) -> tuple[AblationReport, dict[str, list[ImageMaps]]]:
    """Measure arms and controls side by side; also give the controls' maps."""
    methods = {name: [run.localised for run in of_arm] for name, of_arm in runs.items()}
    for name, maps in own_maps(data.boxed).items():
        methods[name] = [of_cases(maps, data.cases)]
    controls, control_maps = control_runs(
        data.spatial, data.boxed, data.images, data.cases, config.fit, config.seeds, say
    )
    say("intervals and tests")
    arms = tuple(_classified(name, runs, data) for name in runs)
    report = AblationReport(
        config=config,
        train_images=len(data.train),
        val_images=len(data.val),
        additive_error=data.boxed.additive_error,
        triage_val_auc=auc(data.labels[data.val], data.val_triage),
        arms=arms,
        localisation=measure_all({**methods, **controls}, data.cases, REFERENCE),
        multi_scale_wins=any(
            arm.name == MULTI_SCALE and arm.difference is not None and arm.difference.low > 0
            for arm in arms
        ),
    )
    return report, control_maps


def write_ablation(
    report: AblationReport,
    data: AblationSet,
    runs: dict[str, list[ArmRun]],
    control_maps: dict[str, list[ImageMaps]],
    spec: PreprocessingSpec,
    out: Path,
) -> Path:
    """Write JSON, table and picture; give the table's path."""
    (out / RESULT).write_text(report.model_dump_json(indent=2) + "\n")
    (out / TABLE).write_text(ablation_text(report))
    maps = {name: runs[name][0].maps for name in IN_PICTURE if name in runs}
    maps["additive_map"] = shown_additive(data.boxed)
    maps["segmenter"] = control_maps["segmenter"][0]
    draw(data, maps, spec, out / PICTURE)
    return out / TABLE


def draw(
    data: AblationSet, maps: dict[str, NDArray[np.float32]], spec: PreprocessingSpec, path: Path
) -> None:
    """Draw the maps of some boxed images, each method a column."""
    chosen = one_image_a_finding(data.images, PICTURED)
    shown = spec.model_copy(update={"size_px": SHOWN_PX})
    images = [data.images[number] for number in chosen]
    grey = [resize_and_stretch(read_image_file(image.path), shown) for image in images]
    columns = [Column(name, [of[number] for number in chosen]) for name, of in maps.items()]
    write_picture(draw_grid(images, grey, columns), path)


def ablation_text(report: AblationReport) -> str:
    """Lay the report out as Markdown."""
    config = report.config
    what = {arm.name: arm.what for arm in ARMS}
    lines = [
        "| arm | parameters | AUC on val, mean of seeds (each) | against `insight` (95 %) |"
        " what it is |",
        "|---|---|---|---|---|",
    ]
    for arm in report.arms:
        each = ", ".join(f"{one:.3f}" for one in arm.auc)
        difference = "-"
        if arm.difference is not None:
            difference = "{:+.3f} ({:+.3f} to {:+.3f})".format(*arm.difference)
        cells = (f"`{arm.name}`", f"{arm.parameters:,}", f"{arm.mean:.3f} ({each})", difference)
        lines.append(f"| {' | '.join(cells)} | {what[arm.name]} |")
    verdict = "kept" if report.multi_scale_wins else "not kept"
    return "\n\n".join(
        [
            f"# Ablation of INSIGHT on {config.bundle}",
            f"Heads on frozen features; {report.train_images} training images, {config.seeds} "
            f"seeds, {config.fit.steps} steps of {config.fit.batch_size} images each, the last "
            f"weights; {report.val_images} cases of val. Every arm shares INSIGHT's projection, "
            "branch and loss. The encoder was trained together with an INSIGHT head, which may "
            "favour INSIGHT here. Test was not looked at: boxes on test images are left aside.",
            "\n".join(lines),
            f"The bundle's triage head alone: AUC {report.triage_val_auc:.3f} on val. Its additive "
            f"map adds up to its score within {report.additive_error:.1e} on every boxed image.",
            "Multi-scale was to be kept if the interval of its gain in AUC on val lies above 0: "
            f"{verdict}.",
            "## Localisation",
            localisation_text(report.localisation, {**what, **NOTES}),
            "",
        ]
    )


def _classified(name: str, runs: dict[str, list[ArmRun]], data: AblationSet) -> Classified:
    of_arm, reference = runs[name], runs[REFERENCE]
    difference = None
    if name != REFERENCE:
        found = cluster_bootstrap(
            data.labels[data.val],
            np.stack([run.val_score for run in of_arm], axis=1),
            np.stack([run.val_score for run in reference], axis=1),
            groups=data.groups[data.val],
            statistic=_gain,
            draws=DRAWS,
        )
        difference = Interval(found.value, found.low, found.high)
    return Classified(
        name=name,
        parameters=of_arm[0].parameters,
        auc=tuple(run.val_auc for run in of_arm),
        difference=difference,
    )


def _gain(
    labels: NDArray[np.bool_], scores: NDArray[np.float64], reference: NDArray[np.float64]
) -> float:
    """Give the difference of the mean areas over seeds, (N, seeds) each."""
    areas = [
        np.mean([auc(labels, column) for column in columns.T]) for columns in (scores, reference)
    ]
    return float(areas[0] - areas[1])
