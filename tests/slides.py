"""Small slide bundles with random weights, and small slides, for tests."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.bundles import Bundle
from model.slide.dicom_writing import write_slide
from model.slide.network import build_slide_network
from model.slide.packing import write_slide_bundle
from model.slide.tiling import SlideTiling

ENCODER: dict[str, Any] = {
    "kind": "compact_davit",
    "widths": (8, 16, 16, 16),
    "depths": (1, 1, 1, 1),
    "heads": (1, 2, 2, 2),
    "window_size": 4,
}
GREY = SlideTiling(tile_px=64, colour="grey", mean=0.5, std=0.25)
PINK = (226, 160, 196)


def write_random_slide_bundle(
    folder: Path, *, encoder: dict[str, Any] = ENCODER, tiling: SlideTiling = GREY, seed: int = 0
) -> Bundle:
    """Write a bundle whose weights are random: it can do nothing but run."""
    torch.manual_seed(seed)
    return write_slide_bundle(
        folder,
        build_slide_network(encoder),
        encoder=encoder,
        tiling=tiling,
        name="random_slide",
        version="0.0.1",
        licence="none",
        training={"weights": "random"},
        card="Random weights, for tests.",
    )


def draw_pink_square(size_px: tuple[int, int], top: int, left: int, side: int) -> NDArray[np.uint8]:
    """Draw a noisy pink square on white glass."""
    rng = np.random.default_rng(7)
    pixels = np.full((*size_px, 3), 244, np.uint8)
    noise = rng.integers(-25, 25, (side, side, 1))
    pixels[top : top + side, left : left + side] = np.clip(np.array(PINK) + noise, 0, 255)
    return pixels


def write_pink_slide(folder: Path, *, size_px: tuple[int, int] = (512, 640)) -> list[Path]:
    """Write a slide of 0.5 micrometres a pixel with a pink square in it."""
    pixels = draw_pink_square(size_px, 128, 192, 256)
    return write_slide(folder, pixels, mpp_um=0.5, frame_px=128)
