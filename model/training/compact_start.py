"""Trained weights to go on from, or to pack: the average of a run, or those of a bundle."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from common.errors import ConfigurationError
from model.bundles import DESCRIPTION, WEIGHTS, read_bundle
from model.training.feature_store import file_sha256
from model.training.run_record import RECORD

AVERAGE = Path("checkpoint", "average.safetensors")
KEPT = ("config", "data", "commit", "versions")


@dataclass(frozen=True)
class Start:
    """Weights, the hash of their file, and the record of the run that they come from."""

    weights: dict[str, Tensor]
    sha256: str
    record: dict[str, Any]

    @property
    def size_px(self) -> int:
        """The input size that the run ended with."""
        return self.record["config"]["stages"][-1]["size_px"]

    def described(self) -> dict[str, object]:
        """Give what the record of the next run says of its start."""
        return {"sha256": self.sha256, **{key: self.record[key] for key in KEPT}}


def read_start(folder: Path) -> Start:
    """Read a bundle, or the average of a run that has ended or been stopped.

    Raises:
        BundleError: the bundle is damaged.
        ConfigurationError: the folder is neither.
    """
    if (folder / DESCRIPTION).exists():
        return _start(folder / WEIGHTS, read_bundle(folder).training)
    if not (folder / AVERAGE).exists():
        raise ConfigurationError(f"{folder} holds neither a bundle nor a run of compact")
    return _start(folder / AVERAGE, json.loads((folder / RECORD).read_text()))


def mean_of_starts(starts: Sequence[Start]) -> Start:
    """Average the weights; the record is the last one's, with what it was averaged with."""
    last = starts[-1]
    if len(starts) == 1:
        return last
    weights = {
        name: torch.stack([start.weights[name] for start in starts]).mean(0)
        for name in last.weights
    }
    others = [start.sha256 for start in starts[:-1]]
    return Start(weights, last.sha256, {**last.record, "averaged_with": others})


def _start(weights: Path, record: dict[str, Any]) -> Start:
    tensors = {name: tensor.float() for name, tensor in load_file(weights).items()}
    return Start(tensors, file_sha256(weights), record)
