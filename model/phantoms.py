"""Generate chest radiographs of nobody: phantoms whose truth is known.

Thicknesses of tissue, air and bone are drawn in millimetres, summed along each ray, exposed with
scatter and noise, and developed as a detector would. They serve the demo and the `phantom` bundle
and nothing else: they train no model that sees real images.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model import phantom_anatomy as anatomy
from model import phantom_exposure as exposure
from model import phantom_findings as findings
from model import phantom_skeleton as skeleton
from model.phantom_canvas import FIELD_HEIGHT_MM, Canvas, Image, resize

_SOFT_PER_MM = 0.0128  # a broad, hardened beam; water at 60 keV alone would be 0.0206
_AIR_PART = 0.74  # of a lung's thickness that attenuates nothing
_WORKING_ROWS = (384, 768)  # anatomy is drawn within these bounds, whatever the size asked for


@dataclass(frozen=True, eq=False)
class Phantom:
    """One simulated frontal chest radiograph.

    Attributes:
        image: float32 (H, W) in [0, 1], 0 is black.
        lesion_boxes: (x, y, width, height) in pixels of ``image``, one for each lesion.
        lungs: bool (H, W), where free lung is projected.
        seed: that made it; the same seed and arguments give the same image.
        side_marker: "R" or "L", as set in the picture.
    """

    image: NDArray[np.float32]
    lesion_boxes: list[tuple[int, int, int, int]] = field(default_factory=list)
    lungs: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), bool))
    seed: int = 0
    side_marker: str = "R"

    @property
    def has_lesion(self) -> bool:
        """Whether anything in it should be flagged."""
        return bool(self.lesion_boxes)


def generate_phantom(
    seed: int, *, lesion: bool, size_px: tuple[int, int] = (1024, 1024)
) -> Phantom:
    """Generate the phantom of a seed, with one to three lesions or with none.

    The same seed is the same patient at every size, and with and without lesions; only the noise,
    whose grain is the pixel, is drawn anew for each size.

    Args:
        seed: any integer from 0.
        lesion: whether to place lesions.
        size_px: (H, W), each at least 64. The field is 430 mm high at every size.
    """
    rows, columns = size_px
    if min(rows, columns) < 64:
        raise ValueError(f"a phantom needs 64 by 64 pixels, not {rows} by {columns}")
    body_rng, decor_rng, lesion_rng, noise_rng = (
        np.random.default_rng([seed, stream]) for stream in range(4)
    )
    canvas, physique, technique = _pose(body_rng, rows, columns)
    attenuation, free_lung = _chest(canvas, physique, body_rng)
    attenuation += findings.harmless(canvas, physique, decor_rng)
    masks: list[Image] = []
    if lesion:
        opacity, masks = findings.lesions(canvas, physique, lesion_rng)
        attenuation += opacity

    signal = exposure.expose(canvas, attenuation, technique)
    signal = resize(signal, rows, columns)
    signal = exposure.add_noise(signal, technique, FIELD_HEIGHT_MM / rows, noise_rng)
    image = exposure.finish(exposure.develop(signal, technique), technique)
    return Phantom(
        image=np.clip(image, 0, 1).astype(np.float32),
        lesion_boxes=[_box(mask, rows, columns) for mask in masks],
        lungs=resize(free_lung.astype(np.float32), rows, columns) > 0.5,
        seed=seed,
        side_marker=technique.marker,
    )


def _pose(
    rng: np.random.Generator, rows: int, columns: int
) -> tuple[Canvas, anatomy.Physique, exposure.Technique]:
    """Draw patient, position and technique, on a grid of a size that is good to draw on."""
    physique = anatomy.Physique.draw(rng)
    technique = exposure.Technique.draw(rng)
    zoom, turn_deg = rng.uniform(0.93, 1.06), rng.normal(0, 1.4)
    shift_mm = (rng.normal(0, 6), rng.normal(0, 6))
    working = int(np.clip(rows, *_WORKING_ROWS))
    width = max(64, round(columns * working / rows))
    canvas = Canvas.place(working, width, zoom=zoom, turn_deg=turn_deg, shift_mm=shift_mm)
    return canvas, physique, technique


def _chest(
    canvas: Canvas, physique: anatomy.Physique, rng: np.random.Generator
) -> tuple[Image, NDArray[np.bool_]]:
    """Sum what attenuates along each ray; also say where free lung is."""
    body = anatomy.body_thickness_mm(canvas, physique)
    lung = anatomy.lung_thickness_mm(canvas, physique)
    lung = np.minimum(lung, 0.8 * body)
    free_lung = lung > 30
    grain = canvas.texture(rng, 3.2) * 0.012 + canvas.texture(rng, 9) * 0.015
    aerated = np.clip(lung / 100, 0, 1)
    soft = body - _AIR_PART * lung * (1 - grain)
    soft += anatomy.lung_vessels(canvas, physique, rng) * (0.15 + 0.85 * aerated)
    if physique.breasts:
        soft += anatomy.breasts(canvas, physique)
    soft -= 15 * anatomy.airway(canvas, physique)
    soft -= 30 * anatomy.stomach_gas(canvas, physique, rng)
    bone = 0.24 * physique.rib_density * skeleton.ribs(canvas, physique)
    bone += 0.26 * skeleton.clavicles(canvas, physique, rng)
    bone += 0.27 * skeleton.spine(canvas, physique)
    bone += 0.4 * skeleton.shoulders(canvas, physique, rng)
    return np.maximum(_SOFT_PER_MM * soft, 0) + bone, free_lung


def _box(mask: Image, rows: int, columns: int) -> tuple[int, int, int, int]:
    """Find the smallest box, in pixels of the finished image, around a mask."""
    ys, xs = np.nonzero(mask > 0)
    across, down = columns / mask.shape[1], rows / mask.shape[0]
    x, y = int(np.floor(xs.min() * across)), int(np.floor(ys.min() * down))
    right, bottom = int(np.ceil((xs.max() + 1) * across)), int(np.ceil((ys.max() + 1) * down))
    return x, y, right - x, bottom - y
