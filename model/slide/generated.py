"""Generated slides: a drawing of stained tissue with or without a planted tumour. Never an image.

For tests, benchmarks and the proof that training runs. Follicles of small crowded nuclei stand on
slides of both kinds, so that neither darkness nor crowding tells them apart: a tumour's nuclei are
larger and irregular. How well such drawings are told apart says nothing about real tissue.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

MPP_UM = 0.5
_GLASS = (243, 241, 245)
_EOSIN = (228, 170, 200)
_NUCLEUS = (112, 84, 152)
_TUMOUR_NUCLEUS = (124, 92, 158)


class GeneratedSlide(NamedTuple):
    """A drawing and where the tumour lies.

    Attributes:
        pixels: uint8 RGB (H, W, 3), 0.5 micrometres a pixel.
        tissue: bool (H, W).
        tumour: bool (H, W); all False without one.
    """

    pixels: NDArray[np.uint8]
    tissue: NDArray[np.bool_]
    tumour: NDArray[np.bool_]


def generate_slide(
    seed: int, *, tumour: bool, size_px: tuple[int, int] = (2048, 2048)
) -> GeneratedSlide:
    """Draw a slide; the same seed gives the same pixels."""
    rng = np.random.default_rng((seed, 20261122))
    tissue = _blob(rng, size_px, (0.5, 0.5), 0.36)
    follicles = np.zeros(size_px, dtype=bool)
    for _ in range(int(rng.integers(1, 3))):
        follicles |= _disc(rng, tissue, rng.uniform(0.05, 0.10))
    diseased = np.zeros(size_px, dtype=bool)
    if tumour:
        diseased = _disc(rng, tissue, rng.uniform(0.08, 0.16))
        follicles &= ~diseased
    pixels = _stroma(rng, tissue)
    _draw_nuclei(rng, pixels, tissue & ~follicles & ~diseased, 1400, (5.0, 7.5), _NUCLEUS)
    _draw_nuclei(rng, pixels, follicles, 260, (5.0, 7.0), _NUCLEUS)
    _draw_nuclei(rng, pixels, diseased, 950, (9.0, 15.0), _TUMOUR_NUCLEUS)
    pixels = cv2.GaussianBlur(pixels, (3, 3), 0)
    # One patch of noise, repeated: drawing it anew for every pixel takes longer than all else.
    patch = rng.normal(0, 3, (256, 256, 3)).astype(np.int16)
    repeats = [-(-side // 256) for side in size_px]
    noise = np.tile(patch, (*repeats, 1))[: size_px[0], : size_px[1]]
    noisy = np.clip(pixels.astype(np.int16) + noise, 0, 255).astype(np.uint8)
    return GeneratedSlide(noisy, tissue, diseased)


def _noise(rng: Generator, size_px: tuple[int, int], cells: int) -> NDArray[np.float32]:
    """Smooth noise of mean 0 and spread about 1, ``cells`` bumps along the longer side."""
    longest = max(size_px)
    coarse = [max(2, round(cells * side / longest)) for side in size_px]
    bumps = rng.standard_normal(coarse).astype(np.float32)
    return cv2.resize(bumps, size_px[::-1], interpolation=cv2.INTER_CUBIC).astype(np.float32)


def _blob(
    rng: Generator, size_px: tuple[int, int], centre: tuple[float, float], radius: float
) -> NDArray[np.bool_]:
    rows, columns = (np.linspace(0, 1, side, dtype=np.float32) for side in size_px)
    distance = np.hypot(rows[:, None] - centre[0], columns[None, :] - centre[1])
    return distance < radius * (1 + 0.18 * _noise(rng, size_px, 7))


def _disc(rng: Generator, tissue: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    coarse = tissue[::8, ::8].astype(np.uint8)
    margin = max(3, round(0.12 * min(coarse.shape)))
    inner = cv2.erode(coarse, np.ones((margin, margin), np.uint8))
    rows, columns = np.nonzero(inner if inner.any() else coarse)
    place = int(rng.integers(len(rows)))
    centre = (8 * rows[place] / tissue.shape[0], 8 * columns[place] / tissue.shape[1])
    return _blob(rng, (tissue.shape[0], tissue.shape[1]), centre, radius) & tissue


def _stroma(rng: Generator, tissue: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Glass, and eosin with fibres on it."""
    size_px = (tissue.shape[0], tissue.shape[1])
    fibres = 9 * _noise(rng, size_px, 12) + 8 * _noise(rng, size_px, 160)
    eosin = np.clip(np.array(_EOSIN, np.float32) + fibres[..., None] * (0.5, 1.0, 0.7), 0, 255)
    return np.where(tissue[..., None], eosin, np.array(_GLASS, np.float32)).astype(np.uint8)


def _draw_nuclei(
    rng: Generator,
    pixels: NDArray[np.uint8],
    where: NDArray[np.bool_],
    pixels_per_nucleus: float,
    radius_px: tuple[float, float],
    colour: tuple[int, int, int],
) -> None:
    """Draw ellipses at random places of a region, in place."""
    places = np.flatnonzero(where)
    if len(places) == 0:
        return
    for place in rng.choice(places, int(len(places) / pixels_per_nucleus)):
        row, column = divmod(int(place), where.shape[1])
        long, short = rng.uniform(*radius_px), rng.uniform(*radius_px)
        shade = rng.normal(0, 10)
        cv2.ellipse(
            pixels,
            (column, row),
            (int(long), int(short)),
            float(rng.uniform(0, 180)),
            0,
            360,
            tuple(float(np.clip(c + shade, 0, 255)) for c in colour),
            -1,
            cv2.LINE_AA,
        )
