"""Keep a training run where it stopped; a later start goes on from there.

A checkpoint is a folder that is there whole or not at all: it is written beside the old one and
then takes its name. No pickle: weights and the optimizer's state are safetensors.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

PROGRESS, OPTIMIZER, GROUPS = "progress.json", "optimizer.safetensors", "optimizer.json"


@dataclass
class Progress:
    """How far a run has come; the random numbers of a step follow from its number alone."""

    step: int = 0
    samples: int = 0


def write_checkpoint(
    folder: Path, models: dict[str, nn.Module], optimizer: Optimizer, progress: Progress
) -> None:
    """Write weights, optimizer and progress; a stop at any instant leaves one whole checkpoint."""
    new, old = _beside(folder, "new"), _beside(folder, "old")
    for left_over in (new, old) if folder.exists() else (new,):
        shutil.rmtree(left_over, ignore_errors=True)
    new.mkdir(parents=True)
    for name, model in models.items():
        tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
        save_file(tensors, new / f"{name}.safetensors")
    _write_optimizer(new, optimizer)
    (new / PROGRESS).write_text(json.dumps(vars(progress)))
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def read_checkpoint(folder: Path, models: dict[str, nn.Module], optimizer: Optimizer) -> Progress:
    """Load what ``write_checkpoint`` wrote; a fresh ``Progress`` if there is nothing yet."""
    if not folder.exists() and _beside(folder, "old").exists():
        _beside(folder, "old").rename(folder)  # stopped between the two renames
    if not (folder / PROGRESS).exists():
        return Progress()
    for name, model in models.items():
        model.load_state_dict(load_file(folder / f"{name}.safetensors"))
    _read_optimizer(folder, optimizer)
    return Progress(**json.loads((folder / PROGRESS).read_text()))


def _write_optimizer(folder: Path, optimizer: Optimizer) -> None:
    """Write the state's tensors as ``NUMBER.NAME``, and the groups as JSON."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    for number, entries in state["state"].items():
        for name, value in entries.items():
            if not isinstance(value, Tensor):
                raise TypeError(f"{type(optimizer).__name__} keeps {name}, which is no tensor")
            tensors[f"{number}.{name}"] = value.contiguous()
    save_file(tensors, folder / OPTIMIZER)
    (folder / GROUPS).write_text(json.dumps(state["param_groups"]))


def _read_optimizer(folder: Path, optimizer: Optimizer) -> None:
    state: dict[int, dict[str, Any]] = {}
    for key, value in load_file(folder / OPTIMIZER).items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    groups = json.loads((folder / GROUPS).read_text())
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _beside(folder: Path, kind: str) -> Path:
    return folder.with_name(f"{folder.name}.{kind}")
