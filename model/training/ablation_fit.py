"""Fit one head on feature maps that are encoded already.

Letters of shapes: N images, B images of a batch, C width of a map, h and w its rows and columns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from model.insight import InsightOutput, insight_loss

SCALE_ROWS = 256
PREDICT_ROWS = 64


class FitConfig(BaseModel):
    """How every head is fitted; the same for all arms.

    The last weights count: none are picked by looking at val.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(default=600, ge=1)
    batch_size: int = Field(default=16, ge=2)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    warm_up: float = Field(default=0.05, ge=0, lt=1, description="Share of the steps")


class Maps(Protocol):
    """Feature maps by row number: float (n, C, h, w)."""

    def __call__(self, rows: Sequence[int]) -> NDArray[np.floating]:
        """Read some rows, in their order."""
        ...


@dataclass(frozen=True)
class ScaledMaps:
    """Maps brought to mean 0 and spread 1 in each channel, by what the training rows show.

    A scale per channel could be folded into the projection that follows; it only helps fitting.
    """

    read: Maps
    mean: NDArray[np.float32]
    spread: NDArray[np.float32]

    def __call__(self, rows: Sequence[int]) -> Tensor:
        """Give float32 (n, C, h, w)."""
        return self.scale(self.read(rows))

    def scale(self, maps: NDArray[np.floating]) -> Tensor:
        """Scale other maps (n, C, h, w) of the same encoder."""
        scaled = (maps.astype(np.float32) - self.mean[:, None, None]) / self.spread[:, None, None]
        return torch.from_numpy(scaled)


def scale_of(read: Maps, rows: NDArray[np.intp]) -> ScaledMaps:
    """Measure the channels on evenly spread training rows."""
    chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), SCALE_ROWS)).astype(int)]
    maps = read(chosen.tolist()).astype(np.float32)
    spread = np.maximum(maps.std(axis=(0, 2, 3)), 1e-6)
    return ScaledMaps(read, maps.mean(axis=(0, 2, 3)), spread)


def fit_head(
    head: nn.Module,
    inputs: Sequence[ScaledMaps],
    rows: NDArray[np.intp],
    labels: NDArray[np.bool_],
    config: FitConfig,
    *,
    decoupling: float,
    seed: int,
) -> None:
    """Fit a head that gives an ``InsightOutput``; half of each batch is abnormal.

    Args:
        head: Changed in place.
        inputs: What the head reads, one or two kinds of maps.
        rows: The training rows of ``inputs``.
        labels: bool (len(rows),).
        config: How long and how fast.
        decoupling: Lambda of the loss.
        seed: Chooses the batches.
    """
    generator = np.random.default_rng(seed)
    classes = [rows[labels], rows[~labels]]
    if min(len(members) for members in classes) == 0:
        raise ValueError("both classes are needed to fit a head")

    def loss() -> Tensor:
        half = config.batch_size // 2
        drawn = np.concatenate([generator.choice(members, half) for members in classes])
        target = torch.cat([torch.ones(half, 1), torch.zeros(half, 1)])
        output: InsightOutput = head(*(maps(drawn.tolist()) for maps in inputs))
        return insight_loss(output, target, decoupling=decoupling)

    descend(head, loss, config)


def descend(head: nn.Module, loss: Callable[[], Tensor], config: FitConfig) -> None:
    """Minimise ``loss`` by AdamW: linear warm-up, then a cosine to zero."""
    head.train()
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    warm_up = max(1, round(config.warm_up * config.steps))

    def rate(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + np.cos(np.pi * (step - warm_up) / max(1, config.steps - warm_up)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    for _ in range(config.steps):
        value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
    head.eval()


def predict_head(head: nn.Module, inputs: Sequence[Tensor]) -> InsightOutput:
    """Run a head over all images of ``inputs``, (N, C, h, w) each, in eval mode."""
    head.eval()
    parts: list[InsightOutput] = []
    with torch.inference_mode():
        for start in range(0, len(inputs[0]), PREDICT_ROWS):
            parts.append(head(*(maps[start : start + PREDICT_ROWS] for maps in inputs)))
    return InsightOutput(*(torch.cat(column) for column in zip(*parts, strict=True)))
