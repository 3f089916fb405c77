"""Draw what is no frontal chest: a lateral view, a hand, a slice. Rough, but never a chest."""

import numpy as np
from numpy.typing import NDArray

from model.phantom_canvas import Canvas, Image, Points, bezier, closed_curve, ellipse, ribbon
from model.phantom_exposure import burn_in


def _points(*rows: tuple[float, float]) -> Points:
    return np.array(rows, np.float32)


def _canvas(size_px: tuple[int, int], rng: np.random.Generator) -> Canvas:
    return Canvas.place(
        *size_px, zoom=rng.uniform(0.93, 1.04), turn_deg=rng.normal(0, 1.5), shift_mm=(0, 0)
    )


def _develop(density: Image, rng: np.random.Generator) -> NDArray[np.float32]:
    noisy = density + rng.normal(0, 0.006, density.shape)
    image = np.clip(noisy / np.percentile(noisy, 99.5), 0, 1).astype(np.float32)
    return burn_in(image).astype(np.float32)


def draw_lateral(seed: int, size_px: tuple[int, int]) -> NDArray[np.float32]:
    """Draw a lateral chest: spine behind, sternum in front, both domes below; (H, W) in [0, 1]."""
    rng = np.random.default_rng([seed, 11])
    canvas = _canvas(size_px, rng)
    trunk = closed_curve(
        _points(
            (-60, -40), (-70, 40), (-118, 90), (-132, 200), (-120, 300), (-112, 480), (112, 480),
            (124, 310), (128, 210), (104, 110), (58, 40), (44, -40),
        )
    )  # fmt: skip
    lungs = closed_curve(
        _points(
            (-20, 62), (-66, 100), (-96, 170), (-98, 250), (-86, 345), (-50, 300), (20, 270),
            (88, 282), (98, 220), (84, 140), (40, 86),
        )
    )  # fmt: skip
    heart = closed_curve(_points((10, 190), (64, 205), (84, 255), (60, 292), (0, 290), (-16, 240)))
    density = 1.6 * canvas.fill(trunk, blur_mm=12) - 0.85 * canvas.fill(lungs, blur_mm=3)
    density += 0.45 * canvas.fill(heart, blur_mm=4)
    column = bezier(_points((-30, 20), (-92, 130), (-100, 260), (-52, 450)), 40)
    vertebrae = [ellipse((float(x), float(y)), (15, 8)) for x, y in column[::2]]
    density += 0.35 * canvas.fill(*vertebrae, blur_mm=1.5)
    sternum = ribbon(bezier(_points((52, 100), (96, 150), (108, 220), (104, 270))), 9)
    density += 0.3 * canvas.fill(sternum, blur_mm=1.5)
    for row in range(9):
        y = 80 + 25 * row
        rib = bezier(_points((-92, y), (-60, y + 6), (20, y + 52), (84, y + 58)))
        density += 0.12 * canvas.fill(ribbon(rib, 9), blur_mm=1.0)
    return _develop(density, rng)


def draw_hand(seed: int, size_px: tuple[int, int]) -> NDArray[np.float32]:
    """Draw a hand with its bones, (H, W) in [0, 1]."""
    rng = np.random.default_rng([seed, 12])
    canvas = _canvas(size_px, rng)
    skin = [
        closed_curve(_points((-62, 430), (-72, 255), (-50, 232), (52, 232), (70, 280), (60, 430)))
    ]
    bones = [ellipse((x, y), (10, 9)) for x in (-33, -11, 11, 33) for y in (372, 393)]
    for x, reach in ((-58, 92), (-20, 48), (18, 38), (54, 66), (105, 190)):
        base = _points((x * 0.62, 352), (x * 0.78, 290), (x * 0.9, 230), (x * 1.15, reach))
        finger = bezier(base, 41)
        skin.append(ribbon(finger, 27))
        for first, last in ((0, 14), (15, 25), (26, 33), (34, 39)):
            piece = finger[first:last]
            bones.append(ribbon(piece, np.linspace(11, 8, len(piece))))
    density = 0.5 * canvas.fill(*skin, blur_mm=2) + 0.55 * canvas.fill(*bones, blur_mm=1)
    return _develop(density, rng)


def draw_slice_hu(seed: int, size_px: tuple[int, int] = (256, 256)) -> NDArray[np.int16]:
    """Draw an axial slice through the chest in Hounsfield units, (H, W)."""
    rng = np.random.default_rng([seed, 13])
    canvas = _canvas(size_px, rng)
    hounsfield = np.full(size_px, -1000.0)
    layers: list[tuple[Points, float]] = [
        (ellipse((0, 215), (180, 125)), 40),
        (ellipse((-85, 205), (70, 90)), -820),
        (ellipse((85, 205), (70, 90)), -820),
        (ellipse((25, 190), (55, 48), 25), 45),
        (ellipse((0, 305), (20, 18)), 350),
    ]
    for outline, value in layers:
        inside = canvas.fill(outline, blur_mm=1.5)
        hounsfield += inside * (value - hounsfield)
    return np.rint(hounsfield + rng.normal(0, 12, size_px)).astype(np.int16)
