"""Draw smooth shapes, given in millimetres, on a grid of pixels."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.floating]  # float32 at run time: NumPy's stubs widen mixed arithmetic
Points = NDArray[np.floating]

FIELD_HEIGHT_MM = 430.0
_SHIFT = 4  # OpenCV's fixed-point bits: shapes are placed to a sixteenth of a pixel


def closed_curve(points: Points, rounds: int = 3) -> Points:
    """Round the corners of a polygon, (N, 2) to (N * 2 ** rounds, 2).

    Source: Chaikin 1974, corner cutting.
    """
    for _ in range(rounds):
        following = np.roll(points, -1, axis=0)
        near, far = 0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following
        points = np.stack([near, far], axis=1).reshape(-1, 2)
    return points.astype(np.float32)


def bezier(points: Points, samples: int = 24) -> Points:
    """Sample the cubic Bezier curve of four control points, (4, 2) to (samples, 2)."""
    t = np.linspace(0, 1, samples, dtype=np.float32)[:, None]
    weights = np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    return (weights @ points).astype(np.float32)


def ribbon(centre_line: Points, width_mm: float | NDArray[np.floating]) -> Points:
    """Outline a band of the given full width (one number, or one per point) along a line."""
    along = np.gradient(centre_line, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-6)
    half = np.broadcast_to(np.asarray(width_mm, np.float32) / 2, len(centre_line))[:, None]
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) * half
    return np.vstack([centre_line + across, (centre_line - across)[::-1]]).astype(np.float32)


def resize(image: Image, rows: int, columns: int) -> Image:
    """Resize an image: averaging where it shrinks, cubic where it grows."""
    if image.shape == (rows, columns):
        return image
    how = cv2.INTER_AREA if rows < image.shape[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (columns, rows), interpolation=how), np.float32)


def ellipse(centre: tuple[float, float], radii: tuple[float, float], tilt_deg: float = 0) -> Points:
    """Outline an ellipse with 48 points; a positive tilt turns it clockwise on the screen."""
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    x, y = radii[0] * np.cos(angle), radii[1] * np.sin(angle)
    turn = np.deg2rad(tilt_deg)
    return np.stack(
        [
            centre[0] + x * np.cos(turn) - y * np.sin(turn),
            centre[1] + x * np.sin(turn) + y * np.cos(turn),
        ],
        axis=1,
    ).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Canvas:
    """A pixel grid and how the patient lies on it.

    Millimetres have their origin on the midline at the upper edge of a field 430 mm high;
    x grows towards the patient's left, which is the right of the screen.

    Attributes:
        rows, columns: of the grid.
        to_pixels: (2, 3) affine from millimetres to pixels.
    """

    rows: int
    columns: int
    to_pixels: NDArray[np.float64]

    @classmethod
    def place(
        cls, rows: int, columns: int, *, zoom: float, turn_deg: float, shift_mm: tuple[float, float]
    ) -> "Canvas":
        """Lay the patient on the grid: turned and zoomed about the chest's centre, then moved."""
        scale = rows / FIELD_HEIGHT_MM
        turn = np.deg2rad(turn_deg)
        linear = (
            scale * zoom * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        )
        chest_mm = np.array([0.0, 195.0])
        target = np.array([columns / 2, rows * chest_mm[1] / FIELD_HEIGHT_MM])
        offset = target + scale * np.array(shift_mm) - linear @ chest_mm
        return cls(rows, columns, np.hstack([linear, offset[:, None]]))

    @property
    def px_per_mm(self) -> float:
        """Pixels of this grid per millimetre of the patient."""
        return float(np.hypot(self.to_pixels[0, 0], self.to_pixels[1, 0]))

    def pixels(self, points: Points) -> Points:
        """Turn millimetres into pixel coordinates, (N, 2) to (N, 2)."""
        return (points @ self.to_pixels[:, :2].T + self.to_pixels[:, 2]).astype(np.float32)

    def fill(self, *outlines: Points, blur_mm: float = 0) -> Image:
        """Fill outlines with 1 (their union), softened by a Gaussian of ``blur_mm``."""
        layer = np.zeros((self.rows, self.columns), np.uint8)
        for outline in outlines:
            corners = np.round(self.pixels(outline) * 2**_SHIFT).astype(np.int32)
            cv2.fillPoly(layer, [corners], (255,), cv2.LINE_AA, _SHIFT)
        image = layer.astype(np.float32) / 255
        return self.blur(image, blur_mm) if blur_mm else image

    def bars(self, pieces: NDArray[np.float32]) -> Image:
        """Fill many straight bars with 1: rows of x, y, x, y, width and width, all in mm."""
        layer = np.zeros((self.rows, self.columns), np.uint8)
        start, end = pieces[:, 0:2], pieces[:, 2:4]
        along = (end - start) / np.linalg.norm(end - start, axis=1, keepdims=True)
        across = np.stack([-along[:, 1], along[:, 0]], axis=1) / 2
        near, far = across * pieces[:, 4:5], across * pieces[:, 5:6]
        corners = np.stack([start + near, start - near, end - far, end + far], axis=1)
        placed = self.pixels(corners.reshape(-1, 2)).reshape(-1, 4, 2)
        for bar in np.round(placed * 2**_SHIFT).astype(np.int32):
            cv2.fillConvexPoly(layer, bar, (255,), cv2.LINE_AA, _SHIFT)
        return layer.astype(np.float32) / 255

    def blur(self, image: Image, sigma_mm: float) -> Image:
        """Blur with a Gaussian; a wide one is computed on a coarser grid, which is enough."""
        sigma_px = sigma_mm * self.px_per_mm
        if sigma_px < 0.3:
            return image
        if sigma_px <= 4:
            return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px), np.float32)
        step = int(sigma_px // 2)
        size = (max(2, self.columns // step), max(2, self.rows // step))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        small = np.asarray(cv2.GaussianBlur(small, (0, 0), sigma_px / step), np.float32)
        return resize(small, self.rows, self.columns)

    def depth_mm(self, mask: Image) -> Image:
        """Measure, for each pixel of a mask, how far it lies from the mask's edge."""
        distance = cv2.distanceTransform((mask > 0.5).astype(np.uint8), cv2.DIST_L2, 5)
        return np.asarray(distance, np.float32) / self.px_per_mm

    def texture(self, rng: np.random.Generator, grain_mm: float) -> Image:
        """Make smooth noise of unit variance whose blobs measure about ``grain_mm``."""
        width_mm = FIELD_HEIGHT_MM * self.columns / self.rows
        coarse = rng.standard_normal(
            (round(FIELD_HEIGHT_MM / grain_mm), round(width_mm / grain_mm)), dtype=np.float32
        )
        image = resize(coarse, self.rows, self.columns)
        return image / max(float(image.std()), 1e-6)
