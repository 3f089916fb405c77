"""The one training loop: draw, augment, score, step, average; now and then look and save.

Letters of shapes: B images, S pixels along a side, F findings named one by one.
"""

import copy
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from model.encoders.encoder import Features
from model.insight import insight_loss
from model.network import TriageNetwork
from model.training.augmentation import Augmentation, augment
from model.training.checkpoints import Progress, read_checkpoint, write_checkpoint


class Stage(BaseModel):
    """A stretch of training at one input size; small first, for speed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size_px: int
    samples: int


class TrainingConfig(BaseModel):
    """All choices of a run; written beside its result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stages: tuple[Stage, ...]
    batch_size: int = 32
    learning_rate: float = 8e-4
    weight_decay: float = 0.05
    warmup_samples: int = 3000
    average_steps: int = 250
    drop_path: float = 0.1
    dropout: float = 0.2
    label_smoothing: float = 0.1
    insight_share: float = 0.4
    findings_share: float = 0.5
    cells_share: float = 3.0
    decoupling: float = 0.01
    bfloat16: bool = False  # of the encoder's products alone; weights stay float32
    report_every: int = 50
    save_every: int = 300
    seed: int = 0
    mean: float = 0.5
    std: float = 0.25

    @property
    def samples(self) -> int:
        """Count the images drawn over all stages."""
        return sum(stage.samples for stage in self.stages)


class Batch(NamedTuple):
    """One batch before augmentation.

    Shapes:
        images: float (B, S, S) in [0, 1]
        target: float (B,), 1 is abnormal
        findings: float (B, F); NaN in rows where nobody named them
        cells: float (B, h, w), the part of each cell that a lesion covers, where that is known;
            such images must not be moved by augmentation
    """

    images: Tensor
    target: Tensor
    findings: Tensor
    cells: Tensor | None = None


class TrainingSet(Protocol):
    """Where batches come from; the same generator state gives the same batch."""

    findings: int

    def draw(self, count: int, size_px: int, generator: np.random.Generator) -> Batch:
        """Draw a batch of ``count`` images at the given size."""
        ...


def train(
    network: TriageNetwork,
    training_set: TrainingSet,
    config: TrainingConfig,
    how: Augmentation,
    folder: Path,
    measure: Callable[[TriageNetwork, int], dict[str, float]],
) -> TriageNetwork:
    """Train, resuming from ``folder`` if it holds a checkpoint; return the averaged network.

    ``measure`` looks at the averaged network at an input size and returns figures to report.
    """
    findings_head = nn.Linear(network.encoder.embedding_width, training_set.findings)
    average = copy.deepcopy(network).eval()
    models = {"network": network, "findings": findings_head, "average": average}
    trained = nn.ModuleList([network, findings_head])
    optimizer = torch.optim.AdamW(_decayed_apart(trained, config.weight_decay), betas=(0.9, 0.98))
    progress = read_checkpoint(folder, models, optimizer)
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    network.train()
    started, losses = time.monotonic(), []
    first_sample = progress.samples
    while progress.samples < config.samples:
        size_px = _size_at(config, progress.samples)
        batch = _augmented(training_set, config, how, size_px, progress.step)
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(config, progress.samples)
        loss = _loss(network, findings_head, batch, config)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        progress = Progress(progress.step + 1, progress.samples + len(batch.images))
        _update_average(average, network, min(1 - 1 / config.average_steps, 1 - 1 / progress.step))
        losses.append(loss.item())
        if progress.step % config.report_every == 0:
            rate = (progress.samples - first_sample) / (time.monotonic() - started)
            report(
                f"step {progress.step} {progress.samples}/{config.samples} at {size_px} px"
                f" loss {np.mean(losses):.4f} {rate:.1f} images/s"
            )
            losses.clear()
        if progress.step % config.save_every == 0 or progress.samples >= config.samples:
            write_checkpoint(folder, models, optimizer, progress)
            figures = measure(average, size_px)
            report("  " + " ".join(f"{name} {value:.3f}" for name, value in figures.items()))
    return average


def report(line: str) -> None:
    """Say how it goes, at once, on the standard error."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _augmented(
    training_set: TrainingSet, config: TrainingConfig, how: Augmentation, size_px: int, step: int
) -> Batch:
    """Draw and augment the batch of this step; every random number follows from seed and step."""
    torch.manual_seed(config.seed * 1_000_003 + step)  # dropout and drop path
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    chooser = np.random.default_rng([config.seed, step])
    batch = training_set.draw(config.batch_size, size_px, chooser)
    images = (augment(batch.images, how, generator) - config.mean) / config.std
    return batch._replace(images=images)


def _loss(
    network: TriageNetwork, findings_head: nn.Module, batch: Batch, config: TrainingConfig
) -> Tensor:
    """Add up what the triage head, INSIGHT and the named findings cost."""
    images = batch.images[:, None].contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=config.bfloat16):
        embedding, spatial = network.encoder(images)
    output = network.read(Features(embedding.float(), spatial.float()))
    smoothed = batch.target * (1 - config.label_smoothing) + config.label_smoothing / 2
    loss = F.binary_cross_entropy_with_logits(output.score, smoothed)
    insight = insight_loss(output.insight, smoothed[:, None], decoupling=config.decoupling)
    loss = loss + config.insight_share * insight
    if batch.cells is not None:
        loss = loss + config.cells_share * _cells_loss(output.insight.heatmap, batch.cells)
    named = ~batch.findings.isnan()
    if named.any():
        logits = findings_head(output.embedding)[named]
        findings = F.binary_cross_entropy_with_logits(logits, batch.findings[named])
        loss = loss + config.findings_share * findings
    return loss


def _cells_loss(heatmap: Tensor, cells: Tensor) -> Tensor:
    """Compare the heatmap with the lesions' places; the few lesion cells weigh as all others."""
    target = cells[:, None].to(heatmap.dtype)
    each = F.binary_cross_entropy(heatmap.clamp(1e-5, 1 - 1e-5), target, reduction="none")
    inside, outside = target, 1 - target
    return (each * inside).sum() / (inside.sum() + 1) + (each * outside).sum() / outside.sum()


def _decayed_apart(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Decay matrices and kernels; leave biases and norms alone."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def _size_at(config: TrainingConfig, samples: int) -> int:
    """Give the input size of the stage that this many samples have reached."""
    for stage in config.stages:
        if samples < stage.samples:
            return stage.size_px
        samples -= stage.samples
    return config.stages[-1].size_px


def _learning_rate(config: TrainingConfig, samples: int) -> float:
    """Warm up linearly, then follow half a cosine down to a hundredth."""
    warm = min(1.0, (samples + config.batch_size) / config.warmup_samples)
    cosine = 0.5 * (1 + math.cos(math.pi * samples / config.samples))
    return config.learning_rate * warm * (0.01 + 0.99 * cosine)


@torch.no_grad()
def _update_average(average: nn.Module, network: nn.Module, keep: float) -> None:
    """Let the averaged weights, and the statistics of batch norm, follow the trained ones."""
    pairs = zip(average.state_dict().values(), network.state_dict().values(), strict=True)
    for mean, current in pairs:
        if mean.is_floating_point():
            mean.lerp_(current, 1 - keep)
        else:
            mean.copy_(current)
