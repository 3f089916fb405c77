"""Measure where a bundle's own maps point, beside every control, on boxed radiographs."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from common.pixels.image_files import read_image_file
from model.bundles import Bundle
from model.evaluation.lesion_boxes import BoxedImage, box_cases, read_boxed_images
from model.evaluation.localisation_picture import (
    Column,
    draw_grid,
    one_image_a_finding,
    write_picture,
)
from model.evaluation.localisation_table import LocalisationReport, localisation_report
from model.evaluation.localisation_text import localisation_text
from model.evaluation.test_log import Look, log_looks
from model.preprocessing import resize_and_stretch
from model.training.ablation_features import encode_stages
from model.training.ablation_fit import FitConfig, scale_of
from model.training.localisation_methods import (
    NOTES,
    control_runs,
    of_cases,
    own_maps,
    shown_additive,
)
from model.training.run_record import commit_of_code, write_run_record

REFERENCE = "bundle_insight"
RESULT, TABLE, PICTURE = "localisation.json", "localisation.md", "maps.png"
PICTURED = 7
SHOWN_PX = 464
Say = Callable[[str], None]


class LocaliseConfig(BaseModel):
    """What a localisation run is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: str
    bundle_sha256: str
    boxes: str
    boxes_sha256: str
    seeds: int
    segmenter: FitConfig


class LocaliseResult(BaseModel):
    """What was found, and on whose images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: LocaliseConfig
    splits: dict[str, int]
    in_sample: str
    additive_error: float
    report: LocalisationReport


def localise(
    bundle: Bundle,
    boxes: Path,
    out: Path,
    *,
    seeds: int = 3,
    fit: FitConfig | None = None,
    device: str = "auto",
    say: Say = lambda _: None,
    test_log: Path | None = None,
) -> LocaliseResult:
    """Measure, and write JSON, table, picture and run record into ``out``.

    Boxes on images of test are a look at test, and logged where ``test_log`` says.

    Raises:
        BundleError: the bundle has no heads.
        TrainingDataError: boxes or images cannot be read.
    """
    images = read_boxed_images(boxes)
    cases = box_cases(images)
    fit = fit or FitConfig()
    config = LocaliseConfig(
        bundle=f"{bundle.name}-{bundle.version}",
        bundle_sha256=bundle.sha256,
        boxes=str(boxes),
        boxes_sha256=hashlib.sha256(boxes.read_bytes()).hexdigest(),
        seeds=seeds,
        segmenter=fit,
    )
    out.mkdir(parents=True, exist_ok=True)
    write_run_record(out, config, {"boxes": len(cases), "images": len(images)})
    say(f"{len(cases)} boxes on {len(images)} images")
    features = encode_stages(bundle, [image.path for image in images], device, say)

    def read(rows: Sequence[int]) -> NDArray[np.float16]:
        return features.spatial[list(rows)]

    scaled = scale_of(read, np.arange(len(images)))
    methods = {name: [of_cases(maps, cases)] for name, maps in own_maps(features).items()}
    controls, maps = control_runs(scaled, features, images, cases, fit, seeds, say)
    say("intervals and tests")
    result = LocaliseResult(
        config=config,
        splits={
            split: sum(len(image.boxes) for image in images if image.split == split)
            for split in sorted({image.split for image in images})
        },
        in_sample=left_out(bundle, images),
        additive_error=features.additive_error,
        report=localisation_report({**methods, **controls}, cases, REFERENCE),
    )
    if test_log is not None and result.splits.get("test"):
        log_looks(test_log, _look(result))
    (out / RESULT).write_text(result.model_dump_json(indent=2) + "\n")
    (out / TABLE).write_text(localise_text(result))
    columns = {
        "bundle_insight": features.insight,
        "additive_map": shown_additive(features),
        **{name: of[0] for name, of in maps.items()},
    }
    chosen = one_image_a_finding(images, PICTURED)
    shown = bundle.preprocessing.model_copy(update={"size_px": SHOWN_PX})
    grey = [resize_and_stretch(read_image_file(images[row].path), shown) for row in chosen]
    picture = draw_grid(
        [images[row] for row in chosen],
        grey,
        [Column(name, [of[row] for row in chosen]) for name, of in columns.items()],
    )
    write_picture(picture, out / PICTURE)
    return result


def _look(result: LocaliseResult) -> Look:
    own = next(row for row in result.report.methods if row.name == REFERENCE)
    return Look(
        job="localise",
        model=result.config.bundle,
        sha256=result.config.bundle_sha256,
        cases=f"{result.splits['test']} lesion boxes on images of test",
        abnormal=None,
        not_abnormal=None,
        commit=commit_of_code(),
        figures=f"over all {sum(result.splits.values())} boxes: hit {own.hit.value:.4f}, "
        f"pixel AUC {own.pixel_auc.value:.4f}",
    )


def left_out(bundle: Bundle, images: list[BoxedImage]) -> str:
    """Say whether the bundle's own record keeps the patients with boxes out of its training."""
    data = bundle.training.get("data", {})
    counts = data.get("left_out", {}) if isinstance(data, dict) else {}
    out = counts.get("patient_with_boxes", 0) if isinstance(counts, dict) else 0
    on_train = sum(len(image.boxes) for image in images if image.split == "train")
    if out:
        return (
            f"{on_train} boxes lie on images of the train split; the bundle's record says that "
            f"{out} images of patients with boxes were left out of its training, so these figures "
            "are out of sample."
        )
    return (
        f"{on_train} boxes lie on images of the train split, and the bundle's record does not say "
        "that their patients were left out of its training: take these figures as in-sample."
    )


def localise_text(result: LocaliseResult) -> str:
    """Lay the result out as Markdown."""
    splits = ", ".join(f"{count} {split or 'none'}" for split, count in result.splits.items())
    return "\n\n".join(
        [
            f"# Localisation of {result.config.bundle}",
            f"{result.in_sample} Boxes by split: {splits}.",
            "The additive map adds up to the triage head's score within "
            f"{result.additive_error:.1e} on every image.",
            localisation_text(result.report, NOTES),
            "",
        ]
    )
