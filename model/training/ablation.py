"""Compare INSIGHT with what leaves a part of it out, on frozen features, over several seeds.

Each arm and seed is fitted, measured and written by itself, so that a run that was stopped goes
on with the next. Arms are compared on val and on boxes outside test; no test label is read.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from safetensors.torch import save_file

from common.errors import TrainingDataError
from model.bundles import Bundle
from model.evaluation.discrimination import auc
from model.evaluation.lesion_boxes import BoxCase, BoxedImage, box_cases, read_boxed_images
from model.evaluation.localisation import Localised
from model.training.ablation_features import StageFeatures, cache_stages, encode_stages
from model.training.ablation_fit import FitConfig, ScaledMaps, fit_head, predict_head, scale_of
from model.training.ablation_heads import ARMS, Arm, build_arm
from model.training.cases import box_images
from model.training.feature_store import FeatureStore
from model.training.localisation_methods import of_cases
from model.training.manifests import ManifestRow, read_manifest
from model.training.run_record import write_run_record

RUNS = "runs"
Say = Callable[[str], None]


class AblationConfig(BaseModel):
    """What an ablation is; a run of an arm is kept only for the very same."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: str
    bundle_sha256: str
    manifest_fingerprint: str
    boxes_sha256: str
    fit: FitConfig
    seeds: int

    @property
    def key(self) -> str:
        """Hash of what every run shares; the number of seeds may grow."""
        shared = self.model_dump(mode="json", exclude={"seeds"})
        return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class AblationSet:
    """What all arms are fitted to and measured on.

    Shapes:
        train, val: numbers of the N images
        labels: bool (N,)
        groups: (N,), patients
        boxed: features of the boxed images
        val_triage: float64, the bundle's triage head on the rows of val
    """

    spatial: ScaledMaps
    other: ScaledMaps
    train: NDArray[np.intp]
    val: NDArray[np.intp]
    labels: NDArray[np.bool_]
    groups: NDArray[np.str_]
    images: list[BoxedImage]
    cases: list[BoxCase]
    boxed: StageFeatures
    val_triage: NDArray[np.float64]


@dataclass(frozen=True)
class ArmRun:
    """One arm on one seed: its scores on val, its maps (n, h, w) of the boxed images."""

    val_score: NDArray[np.float64]
    val_auc: float
    parameters: int
    maps: NDArray[np.float32]
    localised: Localised


def open_ablation(
    bundle: Bundle,
    boxes: Path,
    out: Path,
    *,
    features: Path | None,
    manifest: Path | None,
    fit: FitConfig,
    seeds: int,
    device: str,
    say: Say,
) -> tuple[AblationSet, AblationConfig]:
    """Take the rows of a store or a manifest, encode both stages into ``out``, prepare everything.

    A store keeps one stage alone, so its images are encoded again for the other.

    Raises:
        TrainingDataError: a file cannot be used, or the store is of another bundle.
        BundleError: the bundle has no heads.
    """
    store = FeatureStore.open(features) if features is not None else None
    if store is not None and store.bundle_sha256 != bundle.sha256:
        raise TrainingDataError(
            f"{features}: encoded by {store.index.plan.bundle}, not by "
            f"{bundle.name}-{bundle.version} as it lies there; name the same bundle"
        )
    if store is not None:
        rows, fingerprint = store.rows, store.manifest_fingerprint
    elif manifest is not None:
        described = read_manifest(manifest)
        rows, fingerprint = described.rows, described.fingerprint
    else:
        raise ValueError("either features or a manifest is needed")
    config = AblationConfig(
        bundle=f"{bundle.name}-{bundle.version}",
        bundle_sha256=bundle.sha256,
        manifest_fingerprint=fingerprint,
        boxes_sha256=hashlib.sha256(boxes.read_bytes()).hexdigest(),
        fit=fit,
        seeds=seeds,
    )
    return prepare_ablation(bundle, rows, boxes, out, device, say), config


def prepare_ablation(
    bundle: Bundle, rows: Sequence[ManifestRow], boxes: Path, out: Path, device: str, say: Say
) -> AblationSet:
    """Bring together features, labels and boxes; boxes on test images are left aside.

    Raises:
        TrainingDataError: train or val lacks a label, or an image cannot be read.
    """
    train, boxed_out = training_rows(rows, boxes)
    val = [row for row in rows if row.split == "val"]
    for name, chosen in (("train", train), ("val", val)):
        if len({row.label for row in chosen}) < 2:
            raise TrainingDataError(f"no cases of both labels in {name}: nothing to compare on")
    images = [image for image in read_boxed_images(boxes) if image.split != "test"]
    say(f"{len(train)} training images ({boxed_out} of boxed patients left out), {len(val)} of val")
    boxed = encode_stages(bundle, [image.path for image in images], device)
    used = [*train, *val]
    cached = cache_stages(bundle, [row.path for row in used], out / "stages", device, say)
    numbers = np.arange(len(used))

    def read_spatial(rows: Sequence[int]) -> NDArray[np.float16]:
        return cached.spatial[list(rows)]

    def read_other(rows: Sequence[int]) -> NDArray[np.float16]:
        return cached.other[list(rows)]

    return AblationSet(
        spatial=scale_of(read_spatial, numbers[: len(train)]),
        other=scale_of(read_other, numbers[: len(train)]),
        train=numbers[: len(train)],
        val=numbers[len(train) :],
        labels=np.array([row.label for row in used], dtype=bool),
        groups=np.array([row.group for row in used]),
        images=images,
        cases=box_cases(images),
        boxed=boxed,
        val_triage=cached.triage_score[len(train) :],
    )


def training_rows(rows: Sequence[ManifestRow], boxes: Path) -> tuple[list[ManifestRow], int]:
    """Give the rows of train whose patient has no box, and count those that were left out."""
    boxed = read_boxed_images(boxes)
    names = box_images(boxes) | {image.path.name for image in boxed}
    patients = {_bare(image.patient_id) for image in boxed}
    patients |= {_bare(row.group) for row in rows if row.path.name in names}
    train = [row for row in rows if row.split == "train"]
    free = [row for row in train if _bare(row.group) not in patients]
    return free, len(train) - len(free)


def run_arm(arm: Arm, seed: int, data: AblationSet, config: AblationConfig, out: Path) -> ArmRun:
    """Fit and measure one arm on one seed, or read what an earlier start wrote."""
    folder = out / RUNS / f"{arm.name}-{seed}"
    result = folder / "result.json"
    kept: dict[str, Any] = json.loads(result.read_text()) if result.is_file() else {}
    if kept.get("key") != config.key:
        kept = _fit_arm(arm, seed, data, config, folder)
        partial = result.with_suffix(".partial")
        partial.write_text(json.dumps(kept) + "\n")
        partial.replace(result)
    maps = np.load(folder / "maps.npy", allow_pickle=False)
    return ArmRun(
        val_score=np.array(kept["val_score"]),
        val_auc=kept["val_auc"],
        parameters=kept["parameters"],
        maps=maps,
        localised=of_cases(maps, data.cases),
    )


def run_ablation(
    data: AblationSet,
    config: AblationConfig,
    out: Path,
    say: Say,
    arms: tuple[Arm, ...] = ARMS,
) -> dict[str, list[ArmRun]]:
    """Run every arm on every seed, or what of it is missing."""
    write_run_record(
        out,
        config,
        {
            "manifest_sha256": config.manifest_fingerprint,
            "train_images": len(data.train),
            "val_images": len(data.val),
            "boxes": len(data.cases),
            "boxed_splits": sorted({image.split for image in data.images}),
        },
    )
    found: dict[str, list[ArmRun]] = {arm.name: [] for arm in arms}
    for seed in range(config.seeds):  # every arm once before any arm twice
        for number, arm in enumerate(arms):
            run = run_arm(arm, seed, data, config, out)
            found[arm.name].append(run)
            hits = run.localised.hit.mean()
            say(
                f"seed {seed}, arm {number + 1} of {len(arms)}, {arm.name}: "
                f"val AUC {run.val_auc:.3f}, hits {hits:.2f}"
            )
    return found


def _fit_arm(
    arm: Arm, seed: int, data: AblationSet, config: AblationConfig, folder: Path
) -> dict[str, Any]:
    inputs = [data.spatial, data.other] if arm.two_stages else [data.spatial]
    boxed = [data.boxed.spatial, data.boxed.other] if arm.two_stages else [data.boxed.spatial]
    widths = (data.boxed.spatial.shape[1], data.boxed.other.shape[1])
    head = build_arm(arm, *widths, seed)
    train_labels = data.labels[data.train]
    fit_head(
        head, inputs, data.train, train_labels, config.fit, decoupling=arm.decoupling, seed=seed
    )
    score = predict_head(head, [maps(data.val.tolist()) for maps in inputs]).probability[:, 0]
    maps = predict_head(
        head, [scaled.scale(one) for scaled, one in zip(inputs, boxed, strict=True)]
    ).heatmap[:, 0]
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.contiguous() for name, tensor in head.state_dict().items()},
        folder / "head.safetensors",
    )
    np.save(folder / "maps.npy", maps.numpy(), allow_pickle=False)
    return {
        "key": config.key,
        "arm": arm.name,
        "seed": seed,
        "parameters": sum(p.numel() for p in head.parameters()),
        "val_auc": auc(data.labels[data.val], score.numpy()),
        "val_score": score.double().tolist(),
    }


def _bare(patient: str) -> str:
    """Strip what different tables put before the number of an NIH patient."""
    bare = patient.removeprefix("nih_")
    return bare.lstrip("0") or bare
