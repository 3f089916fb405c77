"""Where a second phase begins: the averaged weights of a run, or those of a bundle."""

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from common.errors import ConfigurationError
from model.bundles import DESCRIPTION, WEIGHTS, read_bundle
from model.training.feature_store import file_sha256
from model.training.run_record import RECORD

AVERAGE = Path("checkpoint", "average.safetensors")


@dataclass(frozen=True)
class Start:
    """Weights to begin with, the hash of their file, and the record of how they came about."""

    weights: dict[str, Tensor]
    sha256: str
    record: dict[str, object]

    def described(self) -> dict[str, object]:
        """Give what the record of the run says of its start."""
        kept = ("config", "data", "commit", "versions")
        return {"sha256": self.sha256, **{key: self.record[key] for key in kept}}


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


def _start(weights: Path, record: dict[str, object]) -> Start:
    tensors = {name: tensor.float() for name, tensor in load_file(weights).items()}
    return Start(tensors, file_sha256(weights), record)
