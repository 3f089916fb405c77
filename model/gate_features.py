"""What the gate sees of an image: its shape in the large, at 64 pixels. No torch."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from model.preprocessing import PreprocessingSpec, resize_and_stretch

SIZE_PX = 64
GLANCE_PX = 256
"""Larger images are thinned to about this before areas are averaged: it saves most of the time."""

_SPEC = PreprocessingSpec(size_px=SIZE_PX)
_CELL_PX, _DIRECTIONS = 8, 9
_CELLS = SIZE_PX // _CELL_PX
_row, _column = np.divmod(np.arange(SIZE_PX**2), SIZE_PX)
_BIN_OF_PIXEL = ((_row // _CELL_PX) * _CELLS + _column // _CELL_PX) * _DIRECTIONS


def glance(image: NDArray[Any]) -> NDArray[np.float32]:
    """Shrink an image (H, W) of any grey scale to float32 (64, 64) in [0, 1]; one grey gives 0."""
    step = max(1, min(image.shape) // GLANCE_PX)
    return resize_and_stretch(np.ascontiguousarray(image[::step, ::step]), _SPEC)


def describe(seen: NDArray[np.float32]) -> NDArray[np.float32]:
    """Describe a glance (64, 64) by float32 (F,): gradients, coarse greys, profiles, histogram."""
    coarse = cv2.resize(seen, (16, 16), interpolation=cv2.INTER_AREA)
    histogram = np.histogram(seen, bins=16, range=(0.0, 1.0))[0] / seen.size
    profiles = (seen.mean(axis=0), seen.mean(axis=1), seen.std(axis=0), seen.std(axis=1))
    steps = (np.abs(np.diff(seen, axis=0)).mean(), np.abs(np.diff(seen, axis=1)).mean())
    symmetry = np.abs(seen - seen[:, ::-1]).mean()
    return np.concatenate(
        [_gradients(seen), coarse.ravel() - 0.5, *profiles, np.sqrt(histogram), steps, (symmetry,)]
    ).astype(np.float32)


def _gradients(seen: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give the histogram of the gradient's directions in each cell, relative to its neighbours'.

    Source: Dalal and Triggs 2005, with unsigned directions; one norm over 3 by 3 cells in place of
    four over 2 by 2, so a quarter of the numbers.
    """
    padded = np.pad(seen, 1, mode="edge")
    across = (padded[1:-1, 2:] - padded[1:-1, :-2]).ravel()
    down = (padded[2:, 1:-1] - padded[:-2, 1:-1]).ravel()
    strength = np.hypot(across, down)
    direction = np.arctan2(down, across) % np.pi * (_DIRECTIONS / np.pi)
    lower = direction.astype(np.intp)
    share = direction - lower
    length = _CELLS * _CELLS * _DIRECTIONS
    cells = np.bincount(_BIN_OF_PIXEL + lower % _DIRECTIONS, strength * (1 - share), length)
    cells += np.bincount(_BIN_OF_PIXEL + (lower + 1) % _DIRECTIONS, strength * share, length)
    cells = cells.reshape(_CELLS, _CELLS, _DIRECTIONS)
    power = cv2.blur((cells**2).sum(axis=2), (3, 3), borderType=cv2.BORDER_REPLICATE)
    return (cells / np.sqrt(power + 0.05)[..., None]).ravel().astype(np.float32)
