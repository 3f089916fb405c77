"""Images that no scanner made: noise, patterns, text and shapes for the gate to refuse.

Each kind is a function of a random generator that gives float32 (S, S) in [0, 1]. The kinds in
``UNSEEN_KINDS`` are never trained on: they say what the gate makes of nonsense that is new to it.
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

SIZE_PX = 192

Image = NDArray[np.float32]
Kind = Callable[[np.random.Generator], Image]


def constant(rng: np.random.Generator) -> Image:
    """One grey, now and then with the least significant bit of a detector's noise."""
    level = np.full((SIZE_PX, SIZE_PX), rng.uniform(), dtype=np.float32)
    return _bounded(level + rng.choice((0.0, 0.0, 1e-4)) * _normal(rng))


def white_noise(rng: np.random.Generator) -> Image:
    """Independent pixels, normal or uniform."""
    if rng.uniform() < 0.5:
        return rng.uniform(size=(SIZE_PX, SIZE_PX)).astype(np.float32)
    return _bounded(0.5 + 0.2 * _normal(rng))


def smooth_noise(rng: np.random.Generator) -> Image:
    """Noise blurred over 1 to 40 pixels."""
    return _stretched(cv2.GaussianBlur(_normal(rng), (0, 0), float(rng.uniform(1, 40))))


def cloud_noise(rng: np.random.Generator) -> Image:
    """Noise whose power falls with frequency, as in scenes of nature."""
    frequency = np.hypot(np.fft.fftfreq(SIZE_PX)[:, None], np.fft.fftfreq(SIZE_PX)[None])
    spectrum = np.fft.fft2(_normal(rng)) / np.maximum(frequency, 1 / SIZE_PX) ** rng.uniform(0.6, 2)
    return _stretched(np.fft.ifft2(spectrum).real)


def salt_and_pepper(rng: np.random.Generator) -> Image:
    """A grey with black and white pixels strewn over it."""
    draw = rng.uniform(size=(SIZE_PX, SIZE_PX))
    share = rng.uniform(0.02, 0.4)
    return np.where(draw < share, draw < share / 2, rng.uniform(0.2, 0.8)).astype(np.float32)


def coarse_blocks(rng: np.random.Generator) -> Image:
    """A few random greys enlarged with or without edges."""
    cells = rng.uniform(size=rng.integers(2, 20, size=2)).astype(np.float32)
    how = cv2.INTER_NEAREST if rng.uniform() < 0.5 else cv2.INTER_CUBIC
    return _bounded(cv2.resize(cells, (SIZE_PX, SIZE_PX), interpolation=how))


def gradient(rng: np.random.Generator) -> Image:
    """A ramp in any direction, or from the middle outwards; now and then with noise."""
    x, y = _grid()
    if rng.uniform() < 0.5:
        angle = rng.uniform(0, 2 * np.pi)
        ramp = np.cos(angle) * x + np.sin(angle) * y
    else:
        ramp = np.hypot(x - rng.uniform(-0.6, 0.6), y - rng.uniform(-0.6, 0.6))
        ramp = ramp * rng.choice((-1, 1))
    return _stretched(ramp + rng.choice((0.0, 0.05)) * _normal(rng))


def checkerboard(rng: np.random.Generator) -> Image:
    """Fields of two greys."""
    x, y = _grid()
    fields = float(rng.uniform(1, 24))
    return _two_greys(rng, (np.floor(x * fields) + np.floor(y * fields)) % 2 > 0)


def stripes(rng: np.random.Generator) -> Image:
    """Bars or waves in any direction."""
    x, y = _grid()
    angle = rng.choice((0, np.pi / 2, rng.uniform(0, np.pi)))
    wave = np.sin((np.cos(angle) * x + np.sin(angle) * y) * rng.uniform(2, 60) + rng.uniform(0, 6))
    return _stretched(wave) if rng.uniform() < 0.5 else _two_greys(rng, wave > 0)


def half_black(rng: np.random.Generator) -> Image:
    """One half black, the other white, grey or noise."""
    image = np.full((SIZE_PX, SIZE_PX), rng.uniform(0.2, 1), dtype=np.float32)
    image = _bounded(image + rng.choice((0.0, 0.1)) * _normal(rng))
    edge = int(SIZE_PX * rng.uniform(0.3, 0.7))
    image[:edge] = 0.0
    return np.ascontiguousarray(np.rot90(image, int(rng.integers(4))))


def text_page(rng: np.random.Generator) -> Image:
    """Lines of letters, white on black or black on white: a report or a screen."""
    page = np.zeros((SIZE_PX, SIZE_PX), dtype=np.uint8)
    height = int(rng.integers(8, 40))
    for y in range(height, SIZE_PX, int(height * rng.uniform(1.1, 2))):
        letters = "".join(chr(c) for c in rng.integers(48, 122, size=int(rng.integers(1, 30))))
        start = (int(rng.integers(0, 60)), y)
        cv2.putText(page, letters, start, cv2.FONT_HERSHEY_SIMPLEX, height / 28, 255, 1)
    image = page.astype(np.float32) / np.float32(255)
    return _bounded(image if rng.uniform() < 0.5 else 1 - image)


def shapes(rng: np.random.Generator) -> Image:
    """Ellipses, boxes and lines of any grey, sharp or blurred, over any ground."""
    image = np.full((SIZE_PX, SIZE_PX), rng.uniform(), dtype=np.float32)
    for _ in range(int(rng.integers(1, 14))):
        middle = [int(v) for v in rng.integers(0, SIZE_PX, size=2)]
        size = [int(v) for v in rng.integers(4, 110, size=2)]
        grey, kind = float(rng.uniform()), rng.integers(3)
        if kind == 0:
            cv2.ellipse(image, middle, size, float(rng.uniform(0, 180)), 0, 360, grey, -1)
        elif kind == 1:
            cv2.rectangle(
                image, middle, [a + b for a, b in zip(middle, size, strict=True)], grey, -1
            )
        else:
            cv2.line(image, middle, [2 * v for v in size], grey, int(rng.integers(1, 12)))
    return _bounded(_blurred(rng, image) + rng.choice((0.0, 0.04)) * _normal(rng))


def disc(rng: np.random.Generator) -> Image:
    """A bright or textured disc on black: a field of view, a dish, a transverse slice."""
    x, y = _grid()
    inside = (
        np.hypot((x - rng.uniform(-0.2, 0.2)) / rng.uniform(0.4, 1), y / rng.uniform(0.4, 1)) < 1
    )
    texture = smooth_noise(rng) * rng.uniform(0.2, 1) + rng.uniform(0, 0.5)
    return _stretched(_blurred(rng, np.where(inside, texture, 0).astype(np.float32)))


def bones(rng: np.random.Generator) -> Image:
    """Bright shafts in a paler envelope on a plain ground: what a limb looks like from afar."""
    x, y = _grid()
    angle = rng.choice((0.0, np.pi / 2)) + rng.normal(scale=0.35)
    along = np.cos(angle) * x + np.sin(angle) * y
    across = -np.sin(angle) * x + np.cos(angle) * y + rng.normal(scale=0.2)
    bend = rng.normal(scale=0.15) * along**2
    width = rng.uniform(0.25, 0.7) * (1 + rng.uniform(-0.4, 0.4) * along)
    image = 0.45 * np.sqrt(np.clip(1 - ((across - bend) / width) ** 2, 0, None))
    for _ in range(int(rng.integers(1, 4))):
        offset, half = rng.uniform(-0.5, 0.5) * width, rng.uniform(0.05, 0.3) * width
        half = half * (1 + rng.uniform(0, 1.5) * np.abs(along) ** 3)
        inside = np.abs((across - bend - offset) / half)
        image = image + rng.uniform(0.2, 0.6) * (inside < 1) * (0.6 + 0.4 * inside**4)
    image = _blurred(rng, image.astype(np.float32)) + 0.02 * _normal(rng)
    if rng.uniform() < 0.4:  # collimated: unexposed film beside the limb is white
        edge = int(SIZE_PX * rng.uniform(0.03, 0.3))
        image[:, :edge] = image[:, -edge:] = image.max()
    return _stretched(image)


def scene(rng: np.random.Generator) -> Image:
    """Clouds, a horizon and things before it: a photograph made grey."""
    image = cloud_noise(rng) * rng.uniform(0.2, 0.7)
    horizon = int(SIZE_PX * rng.uniform(0.2, 0.8))
    image[horizon:] += rng.uniform(-0.4, 0.4)
    things = shapes(rng)
    return _stretched(np.where(rng.uniform() < 0.5, image, 0) + things * rng.uniform(0.2, 1))


def voronoi(rng: np.random.Generator) -> Image:
    """Cells around random points."""
    x, y = _grid()
    points = rng.uniform(-1, 1, size=(int(rng.integers(4, 60)), 2))
    distance = np.stack([np.hypot(x - px, y - py) for px, py in points])
    return rng.uniform(size=len(points)).astype(np.float32)[distance.argmin(axis=0)]


def code_squares(rng: np.random.Generator) -> Image:
    """A matrix of black and white squares with a quiet border, as in a printed code."""
    count = int(rng.integers(15, 45))
    matrix = np.pad((rng.uniform(size=(count, count)) < 0.5).astype(np.float32), 3)
    return _bounded(cv2.resize(matrix, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_NEAREST))


def rings(rng: np.random.Generator) -> Image:
    """Waves around a point: a resolution target."""
    x, y = _grid()
    radius = np.hypot(x - rng.uniform(-0.5, 0.5), y - rng.uniform(-0.5, 0.5))
    return _stretched(np.sin(radius ** rng.uniform(0.7, 2) * rng.uniform(5, 60)))


def spiral(rng: np.random.Generator) -> Image:
    """Arms around the middle."""
    x, y = _grid()
    turned = np.arctan2(y, x) * int(rng.integers(1, 6)) + np.hypot(x, y) * rng.uniform(4, 30)
    return _stretched(np.sin(turned))


def speckle(rng: np.random.Generator) -> Image:
    """Multiplicative noise over blobs, as in ultrasound, often within a fan."""
    x, y = _grid()
    image = smooth_noise(rng) * np.abs(_normal(rng))
    if rng.uniform() < 0.7:
        fan = (np.abs(np.arctan2(x, y + 1.1)) < rng.uniform(0.4, 0.8)) & (
            np.hypot(x, y + 1.1) < 1.9
        )
        image = np.where(fan, image, 0)
    return _stretched(np.sqrt(image.astype(np.float32)))


NOISE_KINDS: tuple[Kind, ...] = (white_noise, smooth_noise, cloud_noise, salt_and_pepper)
PATTERN_KINDS: tuple[Kind, ...] = (
    coarse_blocks,
    gradient,
    checkerboard,
    stripes,
    half_black,
    text_page,
    shapes,
    disc,
)
UNSEEN_KINDS: tuple[Kind, ...] = (voronoi, code_squares, rings, spiral, speckle)


def _grid() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give x and y in [-1, 1], each (S, S)."""
    steps = np.linspace(-1, 1, SIZE_PX)
    x, y = np.meshgrid(steps, steps)
    return x, y


def _normal(rng: np.random.Generator) -> Image:
    return rng.standard_normal((SIZE_PX, SIZE_PX), dtype=np.float32)


def _blurred(rng: np.random.Generator, image: Image) -> Image:
    sigma = float(rng.choice((0.0, 1.0, 3.0, 8.0)))
    return cv2.GaussianBlur(image, (0, 0), sigma).astype(np.float32) if sigma else image


def _two_greys(rng: np.random.Generator, where: NDArray[np.bool_]) -> Image:
    low, high = np.sort(rng.uniform(size=2))
    return np.where(where, high, low).astype(np.float32)


def _bounded(image: NDArray[Any]) -> Image:
    return np.clip(image, 0, 1).astype(np.float32)


def _stretched(image: NDArray[Any]) -> Image:
    low, high = float(image.min()), float(image.max())
    return ((image - low) / max(high - low, 1e-9)).astype(np.float32)
