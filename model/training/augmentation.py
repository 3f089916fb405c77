"""Change what must not matter: position, size, grey scale, sharpness, noise, small occlusions.

Letters of shapes: B images, S pixels along a side.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """How far an image may be moved and changed; 0 switches a change off."""

    rotation_deg: float = 12.0
    log_scale: float = 0.18
    log_aspect: float = 0.08
    shift: float = 0.07
    flip: float = 0.5
    log_gamma: float = 0.35
    window: float = 0.15
    sharpness: float = 0.9
    noise: float = 0.05
    erase: float = 0.3
    erase_side: float = 0.3


def augment(images: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
    """Change float images (B, S, S) in [0, 1], each in its own way; the range is kept."""
    images = _move(images[:, None], how, generator)
    images = _change_sharpness(images, how, generator)
    images = _change_greys(images, how, generator)
    return _erase(images, how, generator)[:, 0]


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.empty(count).uniform_(low, high, generator=generator)


def _move(images: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
    """Rotate, scale, stretch, shift and mirror about the centre; outside is the edge repeated."""
    b = len(images)
    angle = _uniform(b, -1, 1, generator) * math.radians(how.rotation_deg)
    scale = _uniform(b, -how.log_scale, how.log_scale, generator).exp()
    aspect = _uniform(b, -how.log_aspect, how.log_aspect, generator).exp()
    mirror = 1 - 2 * (_uniform(b, 0, 1, generator) < how.flip).float()
    theta = torch.zeros(b, 2, 3)
    theta[:, 0, 0] = angle.cos() * scale * aspect * mirror
    theta[:, 0, 1] = -angle.sin() * scale
    theta[:, 1, 0] = angle.sin() * scale * mirror
    theta[:, 1, 1] = angle.cos() * scale / aspect
    theta[:, 0, 2] = _uniform(b, -2 * how.shift, 2 * how.shift, generator)
    theta[:, 1, 2] = _uniform(b, -2 * how.shift, 2 * how.shift, generator)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _change_sharpness(images: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
    """Blur or sharpen: sources differ in resolution, and it must not give them away."""
    amount = _uniform(len(images), -how.sharpness, how.sharpness, generator).view(-1, 1, 1, 1)
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return images + amount * (images - blurred)


def _change_greys(images: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
    """Change the window, the gamma and the noise."""
    b = len(images)
    low = _uniform(b, -how.window, how.window, generator).view(-1, 1, 1, 1)
    high = 1 + _uniform(b, -how.window, how.window, generator).view(-1, 1, 1, 1)
    gamma = _uniform(b, -how.log_gamma, how.log_gamma, generator).exp().view(-1, 1, 1, 1)
    images = ((images - low) / (high - low)).clamp(0, 1).pow(gamma)
    strength = _uniform(b, 0, how.noise, generator).view(-1, 1, 1, 1)
    noise = torch.randn(images.shape, generator=generator)
    return (images + strength * noise).clamp(0, 1)


def _erase(images: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
    """Cover a rectangle of some images with one grey: no single place may carry the verdict."""
    size = images.shape[-1]
    for image in images:
        chance, x, y, width, height, grey = torch.rand(6, generator=generator).tolist()
        if chance >= how.erase:
            continue
        left, top = int(x * size), int(y * size)
        right = left + 1 + int(width * how.erase_side * size)
        bottom = top + 1 + int(height * how.erase_side * size)
        image[:, top:bottom, left:right] = grey
    return images
