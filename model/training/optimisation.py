"""Parts of training that fine-tuning and heads share: decay, schedule, average, frozen norms."""

import math

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def decayed_apart(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Decay matrices and kernels; leave biases and norms alone."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def warm_cosine(step: int, steps: int, warmup_steps: int, floor: float = 0.01) -> float:
    """Give the share of the learning rate at a step: up linearly, then half a cosine down."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    along = (step - warmup_steps) / max(1, steps - warmup_steps)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * along))


def average_keeps(decay: float, step: int) -> float:
    """Give how much of the average is kept at a step; less in the beginning, to forget it soon."""
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, keep: float) -> None:
    """Let the averaged weights follow the trained ones; what is no float is copied."""
    pairs = zip(average.state_dict().values(), model.state_dict().values(), strict=True)
    for mean, current in pairs:
        if mean.is_floating_point():
            mean.lerp_(current.to(mean.dtype), 1 - keep)
        else:
            mean.copy_(current)


def freeze_batch_norm(model: nn.Module) -> int:
    """Keep the statistics of every batch norm as they are, and train its scale and shift.

    A fine-tuning batch of 48, cut into chunks and spread over processes, is too small to estimate
    them anew: each process would drift its own way, and a result would depend on how the batch
    was cut. Call it again after ``model.train()``.

    Returns:
        How many there are.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.eval()
    return len(norms)


def checkpoint_gradients(model: nn.Module) -> int:
    """Let timm's stages forget their insides and compute them again: less memory, more time.

    Returns:
        How many parts obey; 0 means that the encoder knows no such switch.
    """
    switched = 0
    for module in model.modules():
        if isinstance(getattr(module, "grad_checkpointing", None), bool):
            setattr(module, "grad_checkpointing", True)  # noqa: B010 - not declared by nn.Module
            switched += 1
    return switched
