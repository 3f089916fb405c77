"""Train INSIGHT on cached features, then fit the triage head to it; a candidate bundle comes out.

Run: ``firstread train insight --features features --bundle chest_xray_compact --out runs/insight``
"""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from sklearn.model_selection import GroupKFold
from torch import Tensor, nn

from common.errors import TrainingDataError
from model.bundles import Bundle
from model.evaluation.discrimination import auc
from model.evaluation.prediction_table import write_predictions
from model.insight import InsightHead, insight_loss
from model.network import PROBABILITY_EPS, TriageNetwork
from model.training.candidate import write_candidate
from model.training.feature_store import FeatureStore, write_whole
from model.training.finetune import CHECKPOINT, EPOCHS, PREDICTIONS, write_result
from model.training.finetune_model import starting_network
from model.training.fitting import Fit, FitConfig, fit
from model.training.manifest_predictions import predict_rows, table_of
from model.training.predictions import Predicted
from model.training.processes import Processes
from model.training.run_beginning import (
    RESULT,
    begin_run,
    described_data,
    require_both_labels,
)
from model.training.triage_head import FOLDS, refit_triage_head

INSIGHT_PREDICTIONS = "insight_predictions.csv"
ROWS_AT_ONCE = 64


class InsightConfig(BaseModel):
    """All choices of a run; written beside its result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fit: FitConfig = FitConfig(
        epochs=30, batch_size=32, chunk_size=32, learning_rate=1e-3, weight_decay=0.05
    )
    decoupling: float = Field(default=0.01, ge=0, description="lambda of spectral decoupling")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    new_head: bool = Field(default=True, description="begin at random, not with the bundle's")


class InsightTrained(NamedTuple):
    """What came out: the folder, and AUC on val of INSIGHT alone and of the new score."""

    folder: Path
    insight_auc: float
    val_auc: float
    val_low: float
    val_high: float


class InsightModel(nn.Module):
    """Give the loss of a chunk of spatial features.

    Shapes:
        spatial: float (B, C, h, w)
        target: float (B,), 1 is abnormal
        share: float, the chunk's part of the batch
    """

    def __init__(self, head: InsightHead, config: InsightConfig) -> None:
        super().__init__()
        self.head = head
        self._decoupling, self._smoothing = config.decoupling, config.label_smoothing

    def forward(self, spatial: Tensor, target: Tensor, share: Tensor) -> Tensor:
        """Compute in float32 whatever the device prefers: the pooling is a sharp exponential."""
        with torch.autocast(spatial.device.type, enabled=False):
            loss = insight_loss(
                self.head(spatial.float()),
                target[:, None],
                decoupling=self._decoupling,
                label_smoothing=self._smoothing,
            )
            return loss * share


class _StoredChunks:
    """Spatial features of some rows of a store."""

    def __init__(self, store: FeatureStore, rows: NDArray[np.intp]) -> None:
        self._store, self._rows = store, rows
        self._labels = store.labels[rows].astype(np.float32)

    def __len__(self) -> int:
        return len(self._rows)

    def chunk(
        self, rows: NDArray[np.intp], batch: NDArray[np.intp], generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        """Give the arguments of ``InsightModel.forward``; nothing here is random."""
        spatial = torch.from_numpy(self._store.spatial(self._rows[rows].tolist())).float()
        share = torch.tensor(len(rows) / len(batch))
        return spatial, torch.from_numpy(self._labels[rows]), share


def train_insight(
    store: FeatureStore,
    bundle: Bundle,
    out: Path,
    config: InsightConfig,
    *,
    device: torch.device,
    processes: Processes,
    say: Callable[[str], None] = lambda _: None,
) -> InsightTrained:
    """Train on the rows of train, watch val, and write bundle, predictions and figures to ``out``.

    INSIGHT's log odds are part of the score, so the triage head is fitted anew over them: over
    those of further INSIGHT heads, each trained without the patients that it is asked about. A
    head's own odds on what it was trained on are too sure, and would leave the triage head little
    to explain. With ``new_head`` false the bundle's INSIGHT may have seen them all the same.
    Every process calls it; the first writes. Stopped and started again it ends the same.

    Raises:
        TrainingDataError: the features are another bundle's, or a split lacks a label.
        ConfigurationError: ``out`` was begun with other choices.
    """
    if store.bundle_sha256 != bundle.sha256:
        raise TrainingDataError(
            f"{store.folder}: encoded by another bundle than {bundle.folder}; "
            "name the one that `firstread train features` was given"
        )
    train, val = store.rows_of("train"), store.rows_of("val")
    for rows, split in ((train, "train"), (val, "val")):
        require_both_labels(store.folder, split, store.labels[rows].tolist())
    data = described_data(
        store.manifest_fingerprint, bundle, train_images=len(train), val_images=len(val)
    )
    record = begin_run(out, config, data, processes, say)
    if record is None:
        return _result(out)
    network = starting_network(bundle, seed=config.fit.seed)
    watch = _Watch(store, val, out, device, say)
    around = Fit(out / CHECKPOINT, processes, device, watch, say)
    model = InsightModel(_starting_head(network, config), config)
    average = fit(model, _StoredChunks(store, train), config.fit, around)
    unseen = _cross_fitted(store, train, network, config, around)
    if processes.rank == 0:
        network.insight = _head(average).cpu()
        fitted = refit_triage_head(
            network,
            _predicted(store, train, unseen),
            store.labels[train],
            store.groups[train],
        )
        candidate = write_candidate(
            out,
            network,
            bundle,
            how=f"with INSIGHT and triage head trained anew on features of {len(train)} images",
            training={**record, "triage_head": asdict(fitted), "start": bundle.training},
            suffix="insight",
        )
        rows = [store.rows[row] for row in val]
        table = predict_rows(rows, candidate, str(device))
        write_predictions(out / PREDICTIONS, table)
        odds = _log_odds(_probabilities(store, val, _stored_head(candidate), device))
        name = f"{candidate.name}-insight"
        write_predictions(out / INSIGHT_PREDICTIONS, table_of(rows, odds, name=name))
        write_result(
            out, table, {"insight_val_auc": auc(table.labels, odds), "epochs": watch.epochs}
        )
    processes.wait()
    return _result(out)


def _starting_head(network: TriageNetwork, config: InsightConfig) -> InsightHead:
    """Give INSIGHT as a training begins: at random, or a copy of what the bundle has."""
    if not config.new_head:
        return copy.deepcopy(network.insight)
    torch.manual_seed(config.fit.seed)
    return InsightHead(network.encoder.spatial_width)


def _cross_fitted(
    store: FeatureStore,
    rows: NDArray[np.intp],
    network: TriageNetwork,
    config: InsightConfig,
    around: Fit,
) -> NDArray[np.float64]:
    """Give INSIGHT's probabilities (n,) by heads that have not seen that patient.

    Every process calls it. Each fold's head has a checkpoint of its own, so a run that was stopped
    goes on here too.

    Raises:
        TrainingDataError: fewer than two patients.
    """
    groups = store.groups[rows]
    folds = min(FOLDS, len(set(groups.tolist())))
    if folds < 2:
        raise TrainingDataError(f"{store.folder}: the images of train are of one patient")
    found = np.empty(len(rows))
    for number, (seen, held_out) in enumerate(GroupKFold(folds).split(rows, groups=groups)):
        around.say(f"INSIGHT without fold {number + 1} of {folds}")
        chunks = _StoredChunks(store, rows[seen])
        least = config.fit.chunk_size * around.processes.count
        batch = min(config.fit.batch_size, len(seen) // least * least)
        fitted = config.fit.model_copy(update={"batch_size": batch})
        own = Fit(
            around.folder.with_name(f"{around.folder.name}_without_{number + 1}"),
            around.processes,
            around.device,
            lambda _model, _epoch: None,
        )
        average = fit(InsightModel(_starting_head(network, config), config), chunks, fitted, own)
        found[held_out] = _probabilities(store, rows[held_out], _head(average), around.device)
    return found


def _stored_head(bundle: Bundle) -> InsightHead:
    """Read INSIGHT back from a bundle, as rounded there."""
    return starting_network(bundle, seed=0).insight.eval()


class _Watch:
    """Looks at the averaged head after each epoch and keeps what it saw."""

    def __init__(
        self,
        store: FeatureStore,
        rows: NDArray[np.intp],
        out: Path,
        device: torch.device,
        say: Callable[[str], None],
    ) -> None:
        self._store, self._rows, self._device, self._say = store, rows, device, say
        self._path = out / EPOCHS
        self.epochs: dict[str, float] = {}
        if self._path.exists():
            self.epochs = json.loads(self._path.read_text())

    def __call__(self, model: nn.Module, epoch: int) -> None:
        found = _probabilities(self._store, self._rows, _head(model), self._device)
        self.epochs[str(epoch)] = auc(self._store.labels[self._rows], found)
        write_whole(self._path, (json.dumps(self.epochs, indent=2) + "\n").encode())
        self._say(f"epoch {epoch}: INSIGHT's val AUC {self.epochs[str(epoch)]:.4f}")


def _head(model: nn.Module) -> InsightHead:
    if not isinstance(model, InsightModel):
        raise TypeError("only INSIGHT is trained here")
    return model.head


def _probabilities(
    store: FeatureStore, rows: NDArray[np.intp], head: InsightHead, device: torch.device
) -> NDArray[np.float64]:
    """Let a head read stored features; float64 (n,)."""
    head = head.to(device).eval()
    found: list[float] = []
    with torch.inference_mode():
        for start in range(0, len(rows), ROWS_AT_ONCE):
            part: Sequence[int] = rows[start : start + ROWS_AT_ONCE].tolist()
            spatial = torch.from_numpy(store.spatial(part)).float().to(device)
            found.extend(head(spatial).probability[:, 0].double().cpu().tolist())
    return np.array(found)


def _predicted(
    store: FeatureStore, rows: NDArray[np.intp], probability: NDArray[np.float64]
) -> Predicted:
    """Put what the triage head is fitted on together; scores and heatmaps are not needed there."""
    nothing = np.zeros(len(rows))
    maps = np.zeros((len(rows), 1, 1), np.float32)
    return Predicted(nothing, probability, maps, store.embeddings[rows])


def _log_odds(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    p = np.clip(probabilities, PROBABILITY_EPS, 1 - PROBABILITY_EPS)
    return np.log(p / (1 - p))


def _result(out: Path) -> InsightTrained:
    figures = json.loads((out / RESULT).read_text())
    names = ("insight_val_auc", "val_auc", "val_auc_low", "val_auc_high")
    return InsightTrained(out, *(figures[name] for name in names))
