"""Phantoms as a training set: each seed once with lesions and once without, truth known.

Letters of shapes: N phantoms, B images of a batch, S pixels along a side, F findings (none here).
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

import model.phantoms
from model.phantoms import generate_phantom
from model.preprocessing import PreprocessingSpec, resize_and_stretch
from model.training.loop import Batch, report

CACHE_PX = 256
FILE_SEEDS = 100
LESIONS_MAX = 4


class PhantomImages(NamedTuple):
    """Phantoms of a range of seeds, without lesions first, then the same seeds with lesions.

    Shapes:
        images: uint8 (N, 256, 256), as the generator made them
        boxes: float32 (N, 4, 4), (x, y, width, height) as parts of the image; unused rows are NaN
        lesion: bool (N,)
    """

    images: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    lesion: NDArray[np.bool_]


def generator_fingerprint() -> str:
    """Hash the source of the generator: phantoms of another source are other phantoms."""
    digest = hashlib.sha256()
    for path in sorted(Path(model.phantoms.__file__).parent.glob("phantom*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def phantom_images(first_seed: int, last_seed: int, cache: Path) -> PhantomImages:
    """Generate the phantoms of a range of seeds, or read those that ``cache`` already holds."""
    folder = cache / generator_fingerprint()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    parts: list[PhantomImages] = []
    for start in range(first_seed, last_seed, FILE_SEEDS):
        seeds = range(start, min(start + FILE_SEEDS, last_seed))
        path = folder / f"{seeds.start:07d}-{seeds.stop:07d}.npz"
        if not path.exists():
            part = _generate(seeds)
            np.savez(path.with_suffix(".part.npz"), images=part[0], boxes=part[1], lesion=part[2])
            path.with_suffix(".part.npz").rename(path)
            report(f"phantoms of seeds {seeds.start} to {seeds.stop - 1} generated")
        with np.load(path) as stored:
            parts.append(PhantomImages(stored["images"], stored["boxes"], stored["lesion"]))
    return PhantomImages(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _generate(seeds: range) -> PhantomImages:
    images, boxes, lesions = [], [], []
    for lesion in (False, True):
        for seed in seeds:
            phantom = generate_phantom(seed, lesion=lesion, size_px=(CACHE_PX, CACHE_PX))
            images.append(np.rint(phantom.image * 255).astype(np.uint8))
            rows = np.full((LESIONS_MAX, 4), np.nan, dtype=np.float32)
            for row, box in zip(rows, phantom.lesion_boxes, strict=False):
                row[:] = np.array(box) / CACHE_PX
            boxes.append(rows)
            lesions.append(lesion)
    return PhantomImages(np.stack(images), np.stack(boxes), np.array(lesions))


def cells_of_boxes(boxes: NDArray[np.float32], cells: int) -> NDArray[np.float32]:
    """Say how much of each cell of a grid lies in a box: float32 (N, cells, cells) in [0, 1].

    Args:
        boxes: (N, K, 4), (x, y, width, height) as parts of the image; NaN rows are no boxes.
    """
    edges = np.arange(cells + 1, dtype=np.float32) / cells
    x, y, width, height = np.moveaxis(boxes, -1, 0)  # (N, K) each

    def overlap(start: NDArray[np.float32], extent: NDArray[np.float32]) -> NDArray[np.float32]:
        low = np.maximum(edges[:-1], start[..., None])
        high = np.minimum(edges[1:], (start + extent)[..., None])
        return np.clip(high - low, 0, None) * cells  # (N, K, cells)

    covered = overlap(y, height)[..., :, None] * overlap(x, width)[..., None, :]
    return np.clip(np.nan_to_num(covered).max(axis=1), 0, 1)


class PhantomSet:
    """Phantoms drawn half with lesions, half without; the lesions' cells go with them."""

    findings = 1

    def __init__(self, phantoms: PhantomImages, cell_px: int) -> None:
        self._phantoms = phantoms
        self._cell_px = cell_px

    def draw(self, count: int, size_px: int, generator: np.random.Generator) -> Batch:
        """Draw phantoms with replacement; half of those drawn have lesions on average."""
        rows = generator.choice(len(self._phantoms.images), size=count)
        images = stretched(self._phantoms.images[rows], size_px)
        boxes = self._phantoms.boxes[rows]
        if generator.random() < 0.5:  # mirrored as a batch, with its boxes
            images = np.ascontiguousarray(images[..., ::-1])
            boxes = boxes.copy()
            boxes[..., 0] = 1 - boxes[..., 0] - boxes[..., 2]
        return Batch(
            torch.from_numpy(images),
            torch.from_numpy(self._phantoms.lesion[rows].astype(np.float32)),
            torch.full((count, self.findings), torch.nan),
            torch.from_numpy(cells_of_boxes(boxes, size_px // self._cell_px)),
        )


def stretched(images: NDArray[np.uint8], size_px: int) -> NDArray[np.float32]:
    """Resize and stretch as for the model: float32 (N, S, S) in [0, 1]."""
    spec = PreprocessingSpec(size_px=size_px)
    return np.stack([resize_and_stretch(image, spec) for image in images])
