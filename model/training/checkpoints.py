"""Keep a training run where it stopped; a later start goes on from there."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import Optimizer

PROGRESS = "progress.json"


@dataclass
class Progress:
    """How far a run has come; the random numbers of a step follow from its number alone."""

    step: int = 0
    samples: int = 0


def write_checkpoint(
    folder: Path, models: dict[str, nn.Module], optimizer: Optimizer, progress: Progress
) -> None:
    """Write weights, optimizer and, last, the progress that makes the others count."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in models.items():
        tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
        save_file(tensors, folder / f"{name}.safetensors")
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    (folder / PROGRESS).write_text(json.dumps(vars(progress)))


def read_checkpoint(folder: Path, models: dict[str, nn.Module], optimizer: Optimizer) -> Progress:
    """Load what ``write_checkpoint`` wrote; a fresh ``Progress`` if there is nothing yet."""
    if not (folder / PROGRESS).exists():
        return Progress()
    for name, model in models.items():
        model.load_state_dict(load_file(folder / f"{name}.safetensors"))
    optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True))
    return Progress(**json.loads((folder / PROGRESS).read_text()))
