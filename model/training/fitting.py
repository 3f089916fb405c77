"""Fit a model to a manifest's rows: resumable to the same result, on one process or several.

A batch is cut into chunks of equal size. A chunk's random numbers follow from the seed, the step
and the chunk's place alone, so the result does not depend on which process computes it: several
processes share a batch's chunks, and one computes them in turn. Sums of floats differ in their
last bits where the order differs.
"""

import contextlib
import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from common.errors import ConfigurationError
from model.training.checkpoints import Progress, read_checkpoint, write_checkpoint
from model.training.optimisation import (
    average_keeps,
    decayed_apart,
    follow,
    freeze_batch_norm,
    warm_cosine,
)
from model.training.processes import Processes


class FitConfig(BaseModel):
    """How a model is fitted; the defaults are those of the paper's fine-tuning."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=48, ge=1)
    chunk_size: int = Field(default=12, ge=1, description="images in one forward pass")
    learning_rate: float = Field(default=1e-5, gt=0)
    weight_decay: float = Field(default=0.2, ge=0)
    warmup_steps: int = Field(default=5, ge=0)
    average_decay: float = Field(default=0.999, ge=0, lt=1)
    gradient_norm: float = Field(default=1.0, gt=0, description="clipped to this")
    precision: Literal["auto", "float32"] = "auto"
    save_every: int = Field(default=50, ge=1, description="steps")
    seed: int = 0


class Chunks(Protocol):
    """Where the model's input comes from."""

    def __len__(self) -> int:
        """Count the rows that may be trained on."""
        ...

    def chunk(
        self, rows: NDArray[np.intp], batch: NDArray[np.intp], generator: torch.Generator
    ) -> Sequence[Tensor]:
        """Give the model's arguments for some rows of a batch.

        The model's losses over all chunks of a batch must add up to the loss of the batch.
        """
        ...


Measure = Callable[[nn.Module, int], None]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Fit:
    """What surrounds a fit: where it is kept, how it is shared out, who is told."""

    folder: Path
    processes: Processes
    device: torch.device
    measure: Measure
    say: Say = lambda _: None


def fit(model: nn.Module, chunks: Chunks, config: FitConfig, around: Fit) -> nn.Module:
    """Fit ``model``, whose forward pass gives the loss of a chunk; return its average.

    Resumes from ``around.folder`` if it holds a checkpoint. ``around.measure`` sees the averaged
    model after each epoch, on the first process only; after a stop it may see the same again.

    Raises:
        ConfigurationError: the batch cannot be cut evenly, or there are too few rows.
    """
    processes, device = around.processes, around.device
    _require_even_chunks(config, processes, len(chunks))
    steps_per_epoch = len(chunks) // config.batch_size
    steps = steps_per_epoch * config.epochs
    model.to(device)
    average = copy.deepcopy(model).eval()
    optimizer = torch.optim.AdamW(decayed_apart(model, config.weight_decay))
    models = {"model": model, "average": average}
    progress = read_checkpoint(around.folder, models, optimizer)
    shared = _shared(model, processes, device)
    model.train()
    freeze_batch_norm(model)
    started, first_step, losses = time.monotonic(), progress.step, []
    while progress.step < steps:
        step = progress.step
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * warm_cosine(step, steps, config.warmup_steps)
        batch = _batch(config, step, steps_per_epoch, len(chunks))
        optimizer.zero_grad()
        loss = _backward(shared, chunks, batch, config, around, step)
        nn.utils.clip_grad_norm_(model.parameters(), config.gradient_norm)
        optimizer.step()
        progress = Progress(step + 1, progress.samples + config.batch_size)
        follow(average, model, average_keeps(config.average_decay, progress.step))
        losses.append(loss)
        ends_epoch = progress.step % steps_per_epoch == 0
        if processes.rank == 0:
            if ends_epoch or progress.step % 10 == 0:
                seen = (progress.step - first_step) * config.batch_size
                rate = f"{seen / (time.monotonic() - started):.1f} images/s"
                around.say(f"step {progress.step} of {steps}: loss {np.mean(losses):.4f}, {rate}")
                losses.clear()
            # Measured first: a run that is stopped in between measures this epoch again, and one
            # that goes on after the checkpoint has it.
            if ends_epoch:
                around.measure(average, progress.step // steps_per_epoch)
            if ends_epoch or progress.step % config.save_every == 0:
                write_checkpoint(around.folder, models, optimizer, progress)
        if ends_epoch:
            processes.wait()
    return average


def _backward(
    shared: nn.Module,
    chunks: Chunks,
    batch: NDArray[np.intp],
    config: FitConfig,
    around: Fit,
    step: int,
) -> float:
    """Add up the gradients of this process's chunks; give their part of the batch's loss."""
    processes, total = around.processes, 0.0
    turns = config.batch_size // (config.chunk_size * processes.count)
    for turn in range(turns):
        place = turn * processes.count + processes.rank
        rows = batch[place * config.chunk_size : (place + 1) * config.chunk_size]
        last = turn == turns - 1
        with _alone(shared) if not last else contextlib.nullcontext():
            generator = _seeded(config.seed, step, place)
            inputs = chunks.chunk(rows, batch, generator)
            with _autocast(config, around.device):
                part = shared(*(one.to(around.device) for one in inputs))
            (part * processes.count).backward()  # the processes' gradients are averaged
        total += part.item()
    return total * processes.count


def _require_even_chunks(config: FitConfig, processes: Processes, rows: int) -> None:
    if config.batch_size % (config.chunk_size * processes.count):
        raise ConfigurationError(
            f"a batch of {config.batch_size} cannot be cut evenly into chunks of "
            f"{config.chunk_size} on {processes.count} processes: change --batch or --chunk"
        )
    if rows < config.batch_size:
        raise ConfigurationError(
            f"{rows} training images are fewer than a batch of {config.batch_size}: "
            "add images or choose a smaller --batch"
        )


def _batch(config: FitConfig, step: int, steps_per_epoch: int, rows: int) -> NDArray[np.intp]:
    """Number the rows of a step's batch: every epoch has its own order, and drops what is over."""
    epoch, place = divmod(step, steps_per_epoch)
    order = np.random.default_rng([config.seed, epoch]).permutation(rows)
    return order[place * config.batch_size : (place + 1) * config.batch_size]


def _seeded(seed: int, step: int, place: int) -> torch.Generator:
    """Seed dropout and drop path for a chunk, and give it a generator of its own."""
    drawn = np.random.SeedSequence([seed, step, place]).generate_state(2)
    torch.manual_seed(int(drawn[0]))
    return torch.Generator().manual_seed(int(drawn[1]))


def _shared(model: nn.Module, processes: Processes, device: torch.device) -> nn.Module:
    if processes.count == 1:
        return model
    devices = [device.index] if device.type == "cuda" else None
    # Batch norms are frozen, so there are no buffers to keep equal.
    return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)


def _alone(shared: nn.Module) -> contextlib.AbstractContextManager[object]:
    """Let gradients add up here before the processes share them."""
    if isinstance(shared, DistributedDataParallel):
        return shared.no_sync()
    return contextlib.nullcontext()


def _autocast(config: FitConfig, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Compute in bf16 where a GPU has it; it needs no scaling of the loss, as fp16 would."""
    if config.precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.autocast("cuda", torch.bfloat16)
    return contextlib.nullcontext()
