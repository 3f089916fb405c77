"""Fine-tune a bundle's network end to end on a manifest; a new candidate bundle comes out.

Run: ``firstread train finetune nih.csv --bundle medimageinsight --out runs/finetuned``
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import save_file
from torch import nn

from common.errors import ConfigurationError, TrainingDataError
from model.bundles import Bundle
from model.evaluation.discrimination import auc, auc_interval
from model.evaluation.prediction_table import PredictionTable, write_predictions
from model.training.candidate import write_candidate
from model.training.feature_encoding import read_input
from model.training.feature_store import write_whole
from model.training.finetune_images import (
    AUGMENTATIONS,
    FinetuneImages,
    finding_names,
    findings_of,
)
from model.training.finetune_model import FinetuneModel, starting_network
from model.training.fitting import Fit, FitConfig, fit
from model.training.manifest_predictions import predict_rows
from model.training.manifests import Manifest, ManifestRow
from model.training.optimisation import checkpoint_gradients
from model.training.processes import Processes
from model.training.run_beginning import (
    RESULT,
    begin_run,
    described_data,
    require_both_labels,
)

CHECKPOINT, EPOCHS, PREDICTIONS = "checkpoint", "epochs.json", "predictions.csv"
FINDINGS = "findings.safetensors"


class FinetuneConfig(BaseModel):
    """All choices of a run; written beside its result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fit: FitConfig = FitConfig()
    augmentation: Literal["none", "light", "full"] = "light"
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    insight_share: float = Field(default=0.4, ge=0)
    findings_share: float = Field(default=0.0, ge=0, description="0: the binary label alone")
    new_insight: bool = Field(default=False, description="begin INSIGHT at random")
    checkpoint_gradients: bool = False


class Finetuned(NamedTuple):
    """What came out: the bundle's folder, and AUC on val with its interval."""

    folder: Path
    val_auc: float
    val_low: float
    val_high: float


def finetune(
    manifest: Manifest,
    bundle: Bundle,
    out: Path,
    config: FinetuneConfig,
    *,
    device: torch.device,
    processes: Processes,
    say: Callable[[str], None] = lambda _: None,
) -> Finetuned:
    """Fine-tune on train, watch val, and write bundle, predictions for val and figures to ``out``.

    Every process calls it; the first writes. A run that was stopped goes on where it was, to the
    same result; a finished one is only read.

    Raises:
        TrainingDataError: a split lacks rows of both labels, or an image cannot be read.
        ConfigurationError: ``out`` was begun with other choices, or a choice cannot be met.
        BundleError: the bundle cannot be loaded.
    """
    train, val = manifest.of("train"), manifest.of("val")
    for rows, split in ((train, "train"), (val, "val")):
        require_both_labels(manifest.path, split, (row.label for row in rows))
    names = finding_names(train) if config.findings_share else ()
    if config.findings_share and not names:
        raise TrainingDataError(f"{manifest.path}: no findings to learn in a column `findings`")
    data = described_data(
        manifest.fingerprint, bundle, train_images=len(train), val_images=len(val)
    ) | {"findings": list(names)}
    record = begin_run(out, config, data, processes, say)
    if record is None:
        return _result(out)
    model = _model(bundle, config, len(names))
    how = AUGMENTATIONS[config.augmentation]
    images = FinetuneImages(train, bundle.preprocessing, findings_of(train, names), how)
    watch = _Watch(val, bundle, out, device, say)
    around = Fit(out / CHECKPOINT, processes, device, watch, say)
    average = fit(model, images, config.fit, around)
    if processes.rank == 0:
        if not isinstance(average, FinetuneModel):
            raise TypeError("the average of a model is such a model")
        per_finding = _finish_findings(out, average, val, bundle, names, device)
        candidate = write_candidate(
            out,
            average.network.cpu(),
            bundle,
            how=f"fine-tuned end to end on {len(train)} images",
            training={**record, "start": bundle.training},
        )
        table = predict_rows(val, candidate, str(device))
        write_predictions(out / PREDICTIONS, table)
        write_result(out, table, {"per_finding_val": per_finding, "epochs": watch.epochs})
    processes.wait()
    return _result(out)


def write_result(out: Path, table: PredictionTable, further: dict[str, object]) -> None:
    """Write the figures on val."""
    area = auc_interval(table.labels, table.scores)
    figures = {"val_auc": area.auc, "val_auc_low": area.low, "val_auc_high": area.high}
    write_whole(out / RESULT, (json.dumps({**figures, **further}, indent=2) + "\n").encode())


class _Watch:
    """Looks at the averaged network after each epoch and keeps what it saw."""

    def __init__(
        self,
        rows: Sequence[ManifestRow],
        bundle: Bundle,
        out: Path,
        device: torch.device,
        say: Callable[[str], None],
    ) -> None:
        self._rows, self._spec, self._device, self._say = rows, bundle.preprocessing, device, say
        self._labels = np.array([row.label for row in rows])
        self._path = out / EPOCHS
        self.epochs: dict[str, dict[str, float]] = {}
        if self._path.exists():
            self.epochs = json.loads(self._path.read_text())

    def __call__(self, model: nn.Module, epoch: int) -> None:
        if not isinstance(model, FinetuneModel):
            raise TypeError("only what is fine-tuned is watched")
        scores: list[float] = []
        places: list[float] = []
        with torch.inference_mode():
            for start in range(0, len(self._rows), 32):
                part = self._rows[start : start + 32]
                images = np.stack([read_input(row.path, self._spec) for row in part])
                output = model.network(torch.from_numpy(images)[:, None].to(self._device))
                scores.extend(output.score.tolist())
                places.extend(output.insight.probability[:, 0].tolist())
        figures = {
            "val_auc": auc(self._labels, scores),
            "val_insight_auc": auc(self._labels, places),
        }
        self.epochs[str(epoch)] = figures
        write_whole(self._path, (json.dumps(self.epochs, indent=2) + "\n").encode())
        said = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        self._say(f"epoch {epoch}: {said}")


def _model(bundle: Bundle, config: FinetuneConfig, findings: int) -> FinetuneModel:
    network = starting_network(
        bundle, seed=config.fit.seed, drop_path=config.drop_path, dropout=config.dropout
    )
    if config.new_insight:
        torch.manual_seed(config.fit.seed)
        network.insight = type(network.insight)(network.encoder.spatial_width)
    if config.checkpoint_gradients and not checkpoint_gradients(network):
        raise ConfigurationError("this encoder has no gradient checkpointing: leave it out")
    return FinetuneModel(
        network,
        findings,
        insight_share=config.insight_share,
        findings_share=config.findings_share,
    )


def _finish_findings(
    out: Path,
    model: FinetuneModel,
    rows: Sequence[ManifestRow],
    bundle: Bundle,
    names: Sequence[str],
    device: torch.device,
) -> dict[str, dict[str, float]]:
    """Write the findings' head beside the bundle, and measure each finding that val has."""
    if model.findings is None:
        return {}
    tensors = {key: one.cpu().contiguous() for key, one in model.findings.state_dict().items()}
    save_file(tensors, out / FINDINGS, metadata={"findings": json.dumps(list(names))})
    logits = []
    with torch.inference_mode():
        for row in rows:
            image = torch.from_numpy(read_input(row.path, bundle.preprocessing))[None, None]
            embedding = model.network.encoder(image.to(device)).embedding
            logits.append(model.findings(embedding)[0].cpu().numpy())
    table, truth = np.stack(logits), findings_of(rows, names)
    figures: dict[str, dict[str, float]] = {}
    for column, name in enumerate(names):
        named = np.isfinite(truth[:, column])
        labels = truth[named, column] > 0
        if labels.any() and not labels.all():
            area = auc_interval(labels, table[named, column])
            figures[name] = {"auc": area.auc, "low": area.low, "high": area.high}
            figures[name]["images"] = int(labels.sum())
    return figures


def _result(out: Path) -> Finetuned:
    figures = json.loads((out / RESULT).read_text())
    values = (figures[name] for name in ("val_auc", "val_auc_low", "val_auc_high"))
    return Finetuned(out, *values)
