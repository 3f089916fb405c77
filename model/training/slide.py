"""Train INSIGHT on labelled slides: one bit a slide, no outline of anything.

A slide is a bag of tiles; the encoder is frozen and its features are cached. Whatever the encoder's
licence forbids, it forbids for the head that is trained on its features.
"""

import copy
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from common.errors import TrainingDataError
from model.bundles import Bundle
from model.evaluation.discrimination import auc_interval
from model.evaluation.test_log import Look, log_looks
from model.insight import InsightHead, StreamedSmoothMax, alpha_for, insight_loss
from model.pipelines import load_encoder
from model.slide.network import SlideNetwork
from model.slide.packing import write_slide_bundle
from model.training.checkpoints import read_checkpoint, write_checkpoint
from model.training.manifests import Manifest, ManifestRow
from model.training.run_record import settle_choices, write_run_record
from model.training.slide_features import (
    describe_stamp,
    encode_slides,
    read_bag,
    tiling_for,
)

RESULT, HISTORY = "result.json", "history.json"
READ_TILES = 64


class Case(NamedTuple):
    """A labelled slide and the file of its features."""

    row: ManifestRow
    file: Path


class SlideTraining(BaseModel):
    """The choices of a run. The learning rate and what follows it are ours: none is published.

    ``tiles_per_step`` are drawn from a slide at random in every epoch; pooling is tied to their
    number. ``slides_per_update`` gradients are added up, since a bag is a batch of one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 0
    epochs: int = Field(default=20, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    decoupling: float = Field(default=0.01, ge=0)
    tiles_per_step: int = Field(default=64, ge=1)
    slides_per_update: int = Field(default=4, ge=1)
    most_tiles: int = Field(default=2000, ge=1)
    mpp_um: float = Field(default=0.5, gt=0)
    tile_px: int = Field(default=224, ge=32)


def train_slides(
    manifest: Manifest,
    encoder_bundle: Bundle,
    folder: Path,
    training: SlideTraining,
    *,
    device: torch.device,
    made_of: str = "slides of the manifest",
    test_log: Path | None = None,
) -> Bundle:
    """Encode, train, choose the epoch on val, write the bundle and ``result.json``.

    Stopped and started again it goes on after the last finished epoch, to the same result. Where
    the manifest has slides of test, they are looked at once the run is over, and ``test_log`` says
    where that is logged; None: nowhere, for slides that were made up.

    Raises:
        TrainingDataError: a slide cannot be used, or train or val lack a class.
        ConfigurationError: ``folder`` was begun with other choices.
    """
    for split in ("train", "val"):
        if {row.label for row in manifest.of(split)} != {False, True}:
            raise TrainingDataError(f"{manifest.path}: {split} needs slides with label 0 and 1")
    tiling = tiling_for(encoder_bundle, training.mpp_um, training.tile_px)
    encoder = load_encoder(encoder_bundle, device)
    data = {
        "manifest_fingerprint": manifest.fingerprint,
        "slides": len(manifest.rows),
        "made_of": made_of,
        "encoder": f"{encoder_bundle.name} {encoder_bundle.version}",
        "encoder_sha256": encoder_bundle.sha256,
    }
    lasting = training.model_dump(mode="json", exclude={"epochs"})  # a run may go on for longer
    settle_choices(folder, {"config": lasting, "data": data})
    record = write_run_record(folder, training, data)
    network = SlideNetwork(encoder).to(device).eval()
    files = encode_slides(
        manifest,
        encoder,
        tiling,
        folder / "features",
        stamp=describe_stamp(encoder_bundle, tiling),
        most_tiles=training.most_tiles,
        device=device,
    )
    cases = [Case(row, file) for row, file in zip(manifest.rows, files, strict=True)]
    _fit(network.insight, cases, folder, training, device)
    result = _evaluate(network.insight, cases, device)
    (folder / RESULT).write_text(json.dumps(result, indent=2) + "\n")
    written = write_slide_bundle(
        folder / "bundle",
        network,
        encoder=encoder_bundle.encoder,
        tiling=tiling,
        name="slide_insight",
        version="0.1.0",
        licence=encoder_bundle.licence,
        training=record,
        card=_card(encoder_bundle, made_of, result),
    )
    if test_log is not None and "test" in result:
        log_looks(test_log, _look(written, result["test"], made_of))
    return written


def _look(bundle: Bundle, row: dict[str, Any], made_of: str) -> Look:
    return Look(
        job="slide",
        model=f"{bundle.name}-{bundle.version}",
        sha256=bundle.sha256,
        cases=f"test: {made_of}",
        abnormal=row["positives"],
        not_abnormal=row["negatives"],
        commit=str(bundle.training["commit"]),
        measured={"auc": row["auc"], "auc_low": row["low"], "auc_high": row["high"]},
    )


def _fit(
    head: InsightHead,
    cases: list[Case],
    folder: Path,
    training: SlideTraining,
    device: torch.device,
) -> None:
    """Train the head and leave it with the weights of the epoch that was best on val."""
    torch.manual_seed(training.seed)
    for module in head.modules():
        if isinstance(module, nn.Conv2d | nn.LayerNorm):
            module.reset_parameters()
    best = copy.deepcopy(head)
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
    )
    models: dict[str, nn.Module] = {"insight": head, "best": best}
    progress = read_checkpoint(folder / "checkpoint", models, optimizer)
    history: list[dict[str, float]] = []
    if progress.step:
        history = json.loads((folder / HISTORY).read_text())[: progress.step]
    train = [case for case in cases if case.row.split == "train"]
    val = [case for case in cases if case.row.split == "val"]
    for epoch in range(progress.step, training.epochs):
        loss = _train_epoch(head, train, optimizer, training, epoch, device)
        on_val = _loss_on(head, val, device)
        if on_val < min((row["val"] for row in history), default=float("inf")):
            best.load_state_dict(head.state_dict())
        history.append({"epoch": epoch + 1, "train": loss, "val": on_val})
        (folder / HISTORY).write_text(json.dumps(history, indent=2) + "\n")
        progress.step, progress.samples = epoch + 1, progress.samples + len(train)
        write_checkpoint(folder / "checkpoint", models, optimizer, progress)
        report = f"epoch {epoch + 1} of {training.epochs}: loss {loss:.3f}, on val {on_val:.3f}"
        print(report, file=sys.stderr)  # noqa: T201
    head.load_state_dict(best.state_dict())


def _train_epoch(
    head: InsightHead,
    cases: list[Case],
    optimizer: torch.optim.Optimizer,
    training: SlideTraining,
    epoch: int,
    device: torch.device,
) -> float:
    """Go once over the slides in an order that follows from seed and epoch; give the mean loss."""
    rng = np.random.default_rng((training.seed, epoch))
    head.train()
    losses = []
    order = rng.permutation(len(cases))
    for start in range(0, len(order), training.slides_per_update):
        together = order[start : start + training.slides_per_update]
        optimizer.zero_grad()
        for place in together:
            case = cases[place]
            spatial = read_bag(case.file).spatial
            if len(spatial) > training.tiles_per_step:
                drawn = rng.choice(len(spatial), training.tiles_per_step, replace=False)
                spatial = spatial[torch.from_numpy(np.sort(drawn))]
            target = torch.tensor([[float(case.row.label)]], device=device)
            output = head(spatial.float().to(device))
            loss = insight_loss(output, target, decoupling=training.decoupling)
            (loss / len(together)).backward()
            losses.append(float(loss.detach()))
        optimizer.step()
    return float(np.mean(losses))


def _loss_on(head: InsightHead, cases: list[Case], device: torch.device) -> float:
    probabilities = np.clip(_probabilities(head, cases, device), 1e-6, 1 - 1e-6)
    labels = np.array([case.row.label for case in cases])
    right = np.where(labels, probabilities, 1 - probabilities)
    return float(-np.log(right).mean())


def _probabilities(
    head: InsightHead, cases: list[Case], device: torch.device
) -> NDArray[np.float64]:
    """Pool every tile of each slide, as the pipeline does."""
    head.eval()
    pooled = []
    for case in cases:
        spatial = read_bag(case.file).spatial
        cells = spatial.shape[0] * spatial.shape[2] * spatial.shape[3]
        pooling = StreamedSmoothMax(alpha_for(cells))
        with torch.inference_mode():
            for part in spatial.split(READ_TILES):
                pooling.add(head(part.float().to(device)).heatmap)
        pooled.append(float(pooling.probability()[0]))
    return np.array(pooled)


def _evaluate(head: InsightHead, cases: list[Case], device: torch.device) -> dict[str, Any]:
    """Give for each split with both classes the area under the curve with its interval."""
    result: dict[str, Any] = {}
    for split in ("train", "val", "test"):
        chosen = [case for case in cases if case.row.split == split]
        labels = [case.row.label for case in chosen]
        if set(labels) == {False, True}:
            probabilities = _probabilities(head, chosen, device)
            result[split] = auc_interval(labels, probabilities)._asdict()
    return result


def _card(encoder: Bundle, made_of: str, result: dict[str, Any]) -> str:
    lines = [
        f"INSIGHT trained on {made_of}, one label a slide, on the frozen encoder of",
        f"{encoder.name} {encoder.version}. No calibration, no operating point.",
        "",
        "| split | tumour / not | AUC (95 %) |",
        "|---|---|---|",
    ]
    for split, row in result.items():
        area = f"{row['auc']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
        lines.append(f"| {split} | {row['positives']} / {row['negatives']} | {area} |")
    return "\n".join(lines)
