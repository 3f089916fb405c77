"""Fit the gate's network and its distance, and choose their limits on radiographs not trained on.

Letters of shapes: N images, F features.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import nn

from model.gate import CLASSES, Gate, GateSpec, Kind

Features = NDArray[np.float32]


class GateConfig(BaseModel):
    """Choices of a training run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 0
    hidden: int = 64
    epochs: int = 5
    batch: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 1e-3
    dropout: float = 0.3
    directions: int = 96
    refuse_chest: float = 0.0
    refuse_unlike: float = 0.0
    refuse_child: float = 0.005


def fit_gate(features: Features, kinds: list[Kind], config: GateConfig) -> Gate:
    """Fit on features (N, F); the limits are not chosen yet."""
    of_kind = np.array([CLASSES.index(kind) for kind in kinds])
    mean = features.mean(axis=0)
    # A feature that hardly varies in training must not shout when it does later.
    scale = features.std(axis=0) + np.float32(0.05)
    standard = (features - mean) / scale
    chests = standard[of_kind < 2]
    directions, remainder = _principal_directions(chests, config.directions)
    first, second = _train(standard, of_kind, config)
    tensors = {
        "mean": mean,
        "scale": scale,
        "hidden_weight": first.weight.detach().numpy().T,
        "hidden_bias": first.bias.detach().numpy(),
        "weight": second.weight.detach().numpy().T,
        "bias": second.bias.detach().numpy(),
        "directions": directions,
        "remainder": np.array(remainder),
    }
    # Half precision is what ships, so it is what the limits are chosen with.
    tensors = {
        name: np.ascontiguousarray(value, dtype=np.float16) for name, value in tensors.items()
    }
    return Gate(GateSpec(least_chest=0, least_adult=0, most_unlike=1, chosen_on="nothing"), tensors)


def choose_limits(gate: Gate, adults: Features, chosen_on: str, config: GateConfig) -> GateSpec:
    """Choose limits that refuse the wanted shares of adults' radiographs (N, F) not trained on.

    A share of 0 puts a limit at the adult that it comes closest to refusing.
    """
    sights = gate.weigh(adults)
    return GateSpec(
        least_chest=_quantile([s.chest for s in sights], config.refuse_chest),
        least_adult=_quantile([s.adult for s in sights], config.refuse_child),
        most_unlike=-_quantile([-s.unlike for s in sights], config.refuse_unlike),
        chosen_on=chosen_on,
    )


def _principal_directions(standard: Features, count: int) -> tuple[Features, float]:
    """Give the directions (F, P) of largest spread and the mean square of all that lies beyond."""
    images, features = standard.shape
    if images < features:
        _, spread, rows = np.linalg.svd(standard, full_matrices=False)
        return rows[:count].T, float((spread[count:] ** 2).sum() / images)
    values, vectors = np.linalg.eigh(standard.T @ standard / images)
    return vectors[:, ::-1][:, :count], float(values[:-count].sum())


def _quantile(values: list[float], share: float) -> float:
    """Give a limit halfway between the value that is just refused and the next."""
    ordered = np.sort(values)
    refused = math.floor(share * len(ordered))
    return float((ordered[max(0, refused - 1)] + ordered[refused]) / 2)


def _train(
    standard: Features, of_kind: NDArray[np.intp], config: GateConfig
) -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(config.seed)
    first = nn.Linear(standard.shape[1], config.hidden)
    second = nn.Linear(config.hidden, len(CLASSES))
    network = nn.Sequential(nn.Dropout(0.2), first, nn.ReLU(), nn.Dropout(config.dropout), second)
    counts = np.bincount(of_kind, minlength=len(CLASSES))
    weights = torch.tensor(1 / np.sqrt(np.maximum(counts, 1)), dtype=torch.float32)
    loss = nn.CrossEntropyLoss(weight=weights, label_smoothing=0.02)
    images, targets = torch.from_numpy(standard), torch.from_numpy(of_kind)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    starts = range(0, len(images) - config.batch + 1, config.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.learning_rate, total_steps=config.epochs * len(starts)
    )
    for _ in range(config.epochs):
        order = torch.randperm(len(images))
        for start in starts:
            rows = order[start : start + config.batch]
            optimiser.zero_grad()
            loss(network(images[rows]), targets[rows]).backward()
            optimiser.step()
            schedule.step()
    return first, second
