"""Draw the bones of a simulated chest: ribs, spine, clavicles, scapulae, humeral heads."""

import numpy as np

from model.phantom_anatomy import LEFT, RIGHT, Physique, wall_x_mm
from model.phantom_canvas import Canvas, Image, Points, bezier, closed_curve, ellipse, ribbon

_FIRST_RIB_MM, _RIB_STEP_MM = 64.0, 22.0


def _mirror(points: Points, side: int) -> Points:
    return points * np.array([side, 1], np.float32)


def _tubes(canvas: Canvas, lines: list[Points], width_mm: float) -> Image:
    """Draw hollow bones: a faint body between two brighter cortical edges."""
    outer = canvas.fill(*(ribbon(line, width_mm) for line in lines), blur_mm=0.7)
    inner = canvas.fill(*(ribbon(line, width_mm * 0.62) for line in lines), blur_mm=1.0)
    return 0.62 * outer + 0.38 * np.clip(outer - inner, 0, 1)


def _posterior_rib(physique: Physique, number: int, side: int) -> Points:
    y = (_FIRST_RIB_MM + _RIB_STEP_MM * (number - 1)) * physique.height
    y_end = y + 22 + 5.6 * number
    x_end = wall_x_mm(physique, y_end)
    points = [(13, y), (0.40 * x_end, y - 10), (x_end * 0.93, y - 3 + 2.2 * number), (x_end, y_end)]
    return _mirror(bezier(np.array(points, np.float32)), side)


def _anterior_rib(physique: Physique, number: int, side: int) -> Points:
    y = (_FIRST_RIB_MM + _RIB_STEP_MM * (number - 1)) * physique.height + 22 + 5.6 * number
    x = wall_x_mm(physique, y)
    fall = 20 + 6.5 * number
    points = [(x, y), (x * 1.0, y + fall * 0.6), (x * 0.8, y + fall), (x * 0.44, y + fall * 1.12)]
    return _mirror(bezier(np.array(points, np.float32)), side)


def ribs(canvas: Canvas, physique: Physique) -> Image:
    """Draw the rib cage, front and back; a rib's own density is about 1."""
    sides = (RIGHT, LEFT)
    back = [_posterior_rib(physique, n, side) for n in range(1, 11) for side in sides]
    front = [_anterior_rib(physique, n, side) for n in range(1, 8) for side in sides]
    near_midline = canvas.fill(
        np.array([(-58, 0), (58, 0), (58, 430), (-58, 430)], np.float32), blur_mm=16
    )
    cartilage_fade = 1 - 0.85 * near_midline
    behind = _tubes(canvas, back[:4], 7.5) + _tubes(canvas, back[4:], 9.5)
    return behind + 0.8 * _tubes(canvas, front, 11.0) * cartilage_fade


def clavicles(canvas: Canvas, physique: Physique, rng: np.random.Generator) -> Image:
    """Draw both clavicles; one shoulder may stand a little higher."""
    lines, tilt = [], rng.uniform(-5, 5)
    for side in (RIGHT, LEFT):
        lift = side * tilt
        points = [(14, 98), (60, 92), (88, 66 + lift), (146 * physique.breadth, 66 + lift)]
        lines.append(_mirror(bezier(np.array(points, np.float32)), side))
    heads = [_mirror(ellipse((15, 98), (9, 8)), side) for side in (RIGHT, LEFT)]
    return _tubes(canvas, lines, 12.5) + 0.35 * canvas.fill(*heads, blur_mm=1.5)


def spine(canvas: Canvas, physique: Physique) -> Image:
    """Draw vertebral bodies, discs between them, pedicles and spinous processes."""
    bodies, ends, pedicles, processes = [], [], [], []
    y, number = -30.0, 0
    while y < 470:
        height = (14.5 + 0.55 * number) * physique.height
        half = 14 + 0.45 * number
        corners = [
            (-half, y), (-half * 0.92, y + height / 2), (-half, y + height),
            (half, y + height), (half * 0.92, y + height / 2), (half, y),
        ]  # fmt: skip
        bodies.append(closed_curve(np.array(corners, np.float32), rounds=2))
        ends.append(ribbon(np.array([(-half, y), (half, y)], np.float32), 1.8))
        pedicles += [ellipse((side * half * 0.62, y + 5), (2.6, 3.6)) for side in (RIGHT, LEFT)]
        processes.append(ellipse((0, y + height * 0.9), (2.4, 6.0)))
        y += height + 4.5
        number += 1
    return (
        0.75 * canvas.fill(*bodies, blur_mm=1.4)
        + 0.3 * canvas.fill(*ends, blur_mm=0.9)
        + 0.35 * canvas.fill(*pedicles, blur_mm=0.9)
        + 0.4 * canvas.fill(*processes, blur_mm=1.1)
    )


def shoulders(canvas: Canvas, physique: Physique, rng: np.random.Generator) -> Image:
    """Draw scapulae, turned out of the lungs more or less, and humeral heads."""
    turned_out = rng.uniform(0, 16)
    blades, edges, heads = [], [], []
    for side in (RIGHT, LEFT):
        blade = np.array(
            [(118, 78), (104, 92), (112, 150), (132, 208), (140, 212), (150, 170), (168, 118)],
            np.float32,
        )
        blade[:, 0] = (blade[:, 0] + turned_out) * physique.breadth
        blades.append(closed_curve(_mirror(blade, side)))
        edges.append(ribbon(_mirror(blade[1:5], side), 2.8))
        socket = (184 * physique.breadth, 104)
        heads.append(_mirror(ellipse(socket, (23, 25)), side))
        shaft = np.array([socket, (206 * physique.breadth, 150), (218, 230)], np.float32)
        heads.append(_mirror(ribbon(shaft, 25), side))
    return (
        0.3 * canvas.fill(*blades, blur_mm=2.0)
        + 0.35 * canvas.fill(*edges, blur_mm=1.0)
        + 1.1 * canvas.fill(*heads, blur_mm=2.0)
    )
