"""Add to a simulated chest what a reader looks for, and what only looks like it."""

import cv2
import numpy as np

from model.phantom_anatomy import LEFT, RIGHT, Physique, heart_outline, lung_outline
from model.phantom_canvas import Canvas, Image, Points, bezier, closed_curve, ellipse, ribbon

_BOX_LEVEL = 0.3  # a lesion's box holds what reaches this part of its peak


def free_lung_mm(physique: Physique, side: int, x_mm: float, y_mm: float) -> float:
    """Measure how deep a point lies in lung that no heart covers; below 0 it lies outside."""
    point = (float(x_mm), float(y_mm))
    inside = cv2.pointPolygonTest(lung_outline(physique, side), point, True)
    heart = cv2.pointPolygonTest(heart_outline(physique), point, True)
    return min(inside, -heart, abs(x_mm) - 24)


def _seek_place(
    rng: np.random.Generator, physique: Physique, depth_mm: float, taken: list[Points]
) -> tuple[float, float]:
    """Draw a place in free lung, at least ``depth_mm`` from its edge and apart from ``taken``."""
    best, best_depth = (0.0, 0.0), -np.inf
    for _ in range(200):
        side = RIGHT if rng.random() < 0.54 else LEFT
        x, y = side * rng.uniform(30, 135), rng.uniform(75, 310)
        depth = free_lung_mm(physique, side, x, y)
        apart = all(np.hypot(*(other - (x, y))) > 62 for other in taken)
        if apart and depth > best_depth:
            best, best_depth = (x, y), depth
        if apart and depth >= depth_mm:
            return x, y
    return best


def _blob(rng: np.random.Generator, centre: tuple[float, float], radius_mm: float) -> Points:
    """Outline an irregular round shape."""
    angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    radius = np.full(20, radius_mm)
    roughness = rng.uniform(0.02, 0.13)
    for wave in range(2, 6):
        radius *= 1 + roughness / wave**0.5 * np.sin(wave * angle + rng.uniform(0, 2 * np.pi))
    stretch, tilt = rng.uniform(0.78, 1.0), rng.uniform(0, np.pi)
    x, y = radius * np.cos(angle), stretch * radius * np.sin(angle)
    shape = np.stack([x * np.cos(tilt) - y * np.sin(tilt), x * np.sin(tilt) + y * np.cos(tilt)], 1)
    return closed_curve((shape + centre).astype(np.float32), rounds=2)


def lesions(
    canvas: Canvas, physique: Physique, rng: np.random.Generator
) -> tuple[Image, list[Image]]:
    """Draw one to three opacities in the lungs.

    Returns:
        Their attenuation (optical density, natural logarithm), and for each its mask at
        ``_BOX_LEVEL`` of its own peak.
    """
    total = np.zeros((canvas.rows, canvas.columns), np.float32)
    masks: list[Image] = []
    taken: list[Points] = []
    for _ in range(rng.choice([1, 2, 3], p=[0.6, 0.27, 0.13])):
        radius = rng.uniform(11, 29)
        softness = rng.uniform(0.12, 0.34) * radius
        centre = _seek_place(rng, physique, 0.75 * radius, taken)
        taken.append(np.array(centre, np.float32))
        shape = canvas.fill(_blob(rng, centre, radius), blur_mm=softness)
        # a sphere is densest where the ray through it is longest
        shape *= 0.7 + 0.3 * canvas.fill(_blob(rng, centre, 0.6 * radius), blur_mm=0.4 * radius)
        shape *= 1 + rng.uniform(0.03, 0.12) * canvas.texture(rng, 5)
        shape = np.clip(shape, 0, None)
        masks.append((shape > _BOX_LEVEL * shape.max()).astype(np.float32))
        total += rng.uniform(0.36, 0.66) * (18 / radius) ** 0.25 * shape
    return total, masks


def harmless(canvas: Canvas, physique: Physique, rng: np.random.Generator) -> Image:
    """Draw what distracts and is no lesion: calcified dots, vessels end on, nipples, a lead."""
    layer = np.zeros((canvas.rows, canvas.columns), np.float32)
    dots = [
        ellipse(_seek_place(rng, physique, 6, []), (radius, radius * rng.uniform(0.8, 1)))
        for radius in rng.uniform(1.1, 2.2, size=rng.integers(0, 4))
    ]
    if dots:
        layer += 0.75 * canvas.fill(*dots, blur_mm=0.5)
    ends_on = []
    for _ in range(rng.integers(2, 7)):
        side = rng.choice([RIGHT, LEFT])
        place = (side * rng.uniform(36, 72), rng.uniform(150, 235))
        ends_on.append(ellipse(place, (2.3, 2.3)))
    layer += 0.2 * canvas.fill(*ends_on, blur_mm=0.7)
    if rng.random() < 0.3:
        x, y = rng.uniform(72, 92), 262 * physique.height + rng.uniform(-8, 8)
        nipples = [ellipse((side * x, y + rng.normal(0, 3)), (4.5, 4.0)) for side in (RIGHT, LEFT)]
        layer += rng.uniform(0.12, 0.22) * canvas.fill(*nipples, blur_mm=1.4)
    if rng.random() < 0.25:
        layer += _lead(canvas, rng)
    return layer


def _lead(canvas: Canvas, rng: np.random.Generator) -> Image:
    """Draw a monitoring lead: a thin wire from the edge to an electrode on the skin."""
    side = rng.choice([RIGHT, LEFT])
    end = (side * rng.uniform(45, 120), rng.uniform(90, 290))
    way = np.array(
        [
            (side * rng.uniform(60, 150), 440),
            (side * rng.uniform(20, 150), 380),
            (side * rng.uniform(90, 150), rng.uniform(250, 350)),
            end,
        ],
        np.float32,
    )
    wire = canvas.fill(ribbon(bezier(way, 40), 1.3), blur_mm=0.3)
    return 0.8 * wire + 0.9 * canvas.fill(ellipse(end, (4.2, 4.2)), blur_mm=0.4)
