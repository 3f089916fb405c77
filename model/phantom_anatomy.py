"""Shape the soft parts of a simulated chest: body, lungs, vessels, heart, diaphragm."""

import math
from dataclasses import dataclass

import numpy as np

from model.phantom_canvas import Canvas, Image, Points, closed_curve, ellipse, ribbon

RIGHT, LEFT = -1, 1  # the patient's sides; the patient's right is on the left of the screen


def _points(*rows: tuple[float, float]) -> Points:
    return np.array(rows, np.float32)


@dataclass(frozen=True)
class Physique:
    """How one simulated patient differs from the next. Lengths in mm, the rest are factors."""

    breadth: float
    height: float
    bulk: float
    heart: float
    heart_tilt_deg: float
    dome_right_mm: float
    dome_left_mm: float
    aortic_knob_mm: float
    rib_density: float
    vessel_density: float
    breasts: float
    stomach_gas: bool

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Physique":
        """Draw one adult."""
        dome = rng.uniform(-12, 12)
        return cls(
            breadth=rng.uniform(0.92, 1.08),
            height=rng.uniform(0.93, 1.06),
            bulk=rng.uniform(0.85, 1.25),
            heart=rng.uniform(0.85, 1.18),
            heart_tilt_deg=rng.uniform(-8, 10),
            dome_right_mm=dome,
            dome_left_mm=dome + rng.uniform(4, 16),
            aortic_knob_mm=rng.uniform(13, 19),
            rib_density=rng.uniform(0.7, 1.25),
            vessel_density=rng.uniform(0.75, 1.25),
            breasts=rng.uniform(0.5, 1.0) if rng.random() < 0.5 else 0.0,
            stomach_gas=bool(rng.random() < 0.7),
        )


def body_outline(physique: Physique) -> Points:
    """Outline torso, shoulders, upper arms and neck."""
    side = _points(
        (50, -40), (54, 8), (70, 32), (112, 48), (165, 62), (205, 88), (232, 140), (236, 205),
        (206, 214), (182, 190), (174, 225), (172, 280), (174, 330), (178, 400), (182, 500),
    )  # fmt: skip
    side[:, 0] *= physique.breadth * (0.9 + 0.1 * physique.bulk)
    mirrored = side[::-1] * np.array([-1, 1], np.float32)
    return closed_curve(np.vstack([side, mirrored]))


def lung_outline(physique: Physique, side: int) -> Points:
    """Outline one lung as if no heart covered it."""
    dome = physique.dome_right_mm if side == RIGHT else physique.dome_left_mm
    above = _points(
        (16, 262), (15, 205), (14, 160), (15, 115), (19, 82), (32, 64), (50, 60), (72, 70),
        (94, 95), (113, 135), (127, 180), (136, 228), (141, 275),
    )  # fmt: skip
    below = _points(
        (143, 318), (142, 333), (138, 331), (122, 307), (96, 292), (66, 286), (40, 291), (19, 303),
    )  # fmt: skip
    above[:, 1] = 60 + (above[:, 1] - 60) * physique.height
    below[:, 1] = 60 + (below[:, 1] - 60) * physique.height + dome
    outline = np.vstack([above, below])
    outline[:, 0] *= side * physique.breadth
    return closed_curve(outline)


def wall_x_mm(physique: Physique, y_mm: float) -> float:
    """Find how far from the midline the inner chest wall stands at a height."""
    outline = lung_outline(physique, LEFT)
    lateral = outline[np.argmax(outline[:, 0] > 32) :]
    lateral = lateral[: int(np.argmax(lateral[:, 0])) + 1]
    return float(np.interp(y_mm, lateral[:, 1], lateral[:, 0])) + 2.0


def heart_outline(physique: Physique) -> Points:
    """Outline the heart; a third of it lies to the patient's right of the midline."""
    base = physique.height
    outline = _points(
        (-14, 165), (-30, 195), (-39, 228), (-39, 262), (-30, 292), (0, 304), (45, 310), (82, 305),
        (97, 284), (90, 252), (71, 219), (47, 193), (33, 174), (18, 163),
    )  # fmt: skip
    outline[:, 0] *= physique.heart * physique.breadth
    pivot = np.array([0, 230], np.float32)
    turn = np.deg2rad(physique.heart_tilt_deg)
    matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]], np.float32)
    outline = (outline - pivot) @ matrix + pivot
    outline[:, 1] = (
        60
        + (outline[:, 1] - 60) * base
        + 0.5
        * (physique.dome_right_mm + physique.dome_left_mm)
        * np.clip((outline[:, 1] - 165) / 140, 0, 1)
    )
    return closed_curve(outline)


def mediastinum_outlines(physique: Physique) -> list[Points]:
    """Outline great vessels: the upper mediastinum, the aortic knob, the descending aorta."""
    stretch = physique.height
    knob = physique.aortic_knob_mm
    upper = closed_curve(
        _points(
            (-21, 40), (-24, 90), (-27, 130), (-25, 175), (-22, 215), (26, 215), (27, 175),
            (25, 150), (22, 110), (20, 75), (19, 40),
        )
    )  # fmt: skip
    upper[:, 1] *= stretch
    arch = ellipse((20, 140 * stretch), (knob, knob * 1.05))
    trunk = ellipse((25, 172 * stretch), (16, 17))
    return [upper, arch, trunk]


def body_thickness_mm(canvas: Canvas, physique: Physique) -> Image:
    """Measure tissue along each ray: deep in the middle, thin at skin, neck and arms."""
    depth = canvas.depth_mm(canvas.fill(body_outline(physique)))
    reach = np.clip(depth / 72, 0, 1)
    profile = np.sqrt(1 - (1 - reach) ** 2)
    y_mm = (np.arange(canvas.rows, dtype=np.float32) - canvas.to_pixels[1, 2]) / canvas.px_per_mm
    thickness = np.interp(y_mm, [0, 60, 130, 250, 330, 430], [125, 150, 185, 205, 222, 232])
    return canvas.blur(profile * physique.bulk * thickness[:, None].astype(np.float32), 2.5)


def lung_thickness_mm(canvas: Canvas, physique: Physique) -> Image:
    """Measure air-filled lung along each ray, less where heart and vessels take its place."""
    total = np.zeros((canvas.rows, canvas.columns), np.float32)
    for side in (RIGHT, LEFT):
        depth = canvas.depth_mm(canvas.fill(lung_outline(physique, side)))
        reach = np.clip(depth / 34, 0, 1)
        total += 122 * canvas.blur(np.sqrt(1 - (1 - reach) ** 2), 1.2)
    y_mm = (np.arange(canvas.rows, dtype=np.float32) - canvas.to_pixels[1, 2]) / canvas.px_per_mm
    total *= np.interp(y_mm, [60, 110, 190, 290], [0.62, 0.85, 1.0, 0.92])[:, None].astype(
        np.float32
    )
    # behind the domes the lung reaches lower than the eye sees its edge
    behind = [lung_outline(physique, side) + _points((0, 22)) for side in (RIGHT, LEFT)]
    total = np.maximum(total, 26 * canvas.fill(*behind, blur_mm=9))
    heart = canvas.fill(heart_outline(physique), blur_mm=1.3)
    vessels = canvas.fill(*mediastinum_outlines(physique), blur_mm=1.6)
    return total * (1 - 0.72 * heart) * (1 - 0.68 * vessels * (1 - heart))


def airway(canvas: Canvas, physique: Physique) -> Image:
    """Draw the air column of trachea and main bronchi, 1 in its middle."""
    carina = 152 * physique.height
    windpipe = ribbon(_points((0, -30), (1, 60), (-2, 100), (-3, carina)), 17)
    right = ribbon(_points((-3, carina - 3), (-16, carina + 16), (-30, carina + 33)), 12)
    left = ribbon(_points((-1, carina - 3), (18, carina + 15), (38, carina + 26)), 10)
    tube = canvas.fill(windpipe, blur_mm=2.5)
    return np.maximum(tube, 0.55 * canvas.fill(right, left, blur_mm=2.5))


def _grow(
    rng: np.random.Generator, start: tuple[float, float], angle: float, width_mm: float
) -> list[tuple[float, ...]]:
    """Grow a vessel that bends, narrows and forks until it is too thin to see.

    Returns:
        Straight pieces: x, y of the start, x, y of the end, width at start and end, in mm.
    """
    pieces: list[tuple[float, ...]] = []
    tips = [(start[0], start[1], angle, width_mm)]
    while tips:
        x, y, angle, width = tips.pop()
        bend, chance, spread, share, turn = rng.random(5)
        length = (5.5 + 4.5 * rng.random()) * width**0.45
        for _ in range(2):
            end_x, end_y = x + length / 2 * math.cos(angle), y + length / 2 * math.sin(angle)
            pieces.append((x, y, end_x, end_y, width, width * 0.93))
            x, y, width, angle = end_x, end_y, width * 0.93, angle + 0.5 * (bend - 0.5)
        if width < 1.15:
            continue
        if chance < 0.62:
            side = math.copysign(0.32 + 0.43 * spread, turn - 0.5)
            tips.append((x, y, angle + side, width * (0.6 + 0.2 * share)))
            tips.append((x, y, angle - 0.45 * side, width * 0.9))
        else:
            tips.append((x, y, angle, width))
    return pieces


def lung_vessels(canvas: Canvas, physique: Physique, rng: np.random.Generator) -> Image:
    """Draw the branching vessels of both lungs and their hila, in mm of tissue."""
    layer = np.zeros((canvas.rows, canvas.columns), np.float32)
    for side in (RIGHT, LEFT):
        x, y = side * 36 * physique.breadth, (187 if side == RIGHT else 178) * physique.height
        pieces: list[tuple[float, ...]] = []
        for angle in np.deg2rad([-78, -52, -25, 4, 30, 52, 72, 88]):
            heading = float(angle) + rng.normal(0, 0.1)
            heading = heading if side == LEFT else math.pi - heading
            start = (x + rng.normal(0, 4), y + rng.normal(0, 6))
            pieces += _grow(rng, start, heading, rng.uniform(5.5, 8.5))
        vessels = np.array(pieces, np.float32)
        wide = vessels[:, 4] > 2.4
        layer += 12 * canvas.blur(canvas.bars(vessels[wide]), 0.9)
        layer += 8 * canvas.blur(canvas.bars(vessels[~wide]), 0.7)
        angle = np.linspace(0, 2 * np.pi, 9, endpoint=False)
        hilum = np.stack([x + 3 * side + 11 * np.cos(angle), y + 3 + 23 * np.sin(angle)], axis=1)
        lumps = rng.normal(0, 3, hilum.shape)
        layer += 19 * canvas.fill(closed_curve((hilum + lumps).astype(np.float32)), blur_mm=3.5)
    return layer * physique.vessel_density


def breasts(canvas: Canvas, physique: Physique) -> Image:
    """Draw the shadows of both breasts, in mm of tissue."""
    shapes = [
        ellipse((side * 84 * physique.breadth, 262 * physique.height), (58, 54), side * -14)
        for side in (RIGHT, LEFT)
    ]
    fold = canvas.fill(*shapes, blur_mm=3)
    return 24 * physique.breasts * fold * (0.45 + 0.55 * canvas.blur(fold, 22))


def stomach_gas(canvas: Canvas, physique: Physique, rng: np.random.Generator) -> Image:
    """Draw the gas bubble below the left dome, 1 in its middle."""
    if not physique.stomach_gas:
        return np.zeros((canvas.rows, canvas.columns), np.float32)
    centre = (rng.uniform(62, 82), 316 * physique.height + physique.dome_left_mm)
    return canvas.fill(
        ellipse(centre, (rng.uniform(16, 26), rng.uniform(9, 14)), rng.uniform(-12, 12)),
        blur_mm=3,
    )
