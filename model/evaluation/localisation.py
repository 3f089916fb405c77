"""Does the heatmap point at the lesion, and does its hottest region cover it?

Every figure follows from the order of the places alone, so that maps of every scale compare.

Letters of shapes: N boxes, h and w rows and columns of a heatmap.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from model.evaluation.discrimination import auc
from model.evaluation.lesion_boxes import BoxCase, LesionBox

Box = tuple[float, float, float, float]

RASTER = 128
"""Rows and columns to which every map is interpolated before its regions are measured."""
HOTTEST_SHARE = 0.05
"""Part of the image that a map may call its own: about the area of the median box."""
TOLERANCE = 0.04
"""Part of the image's side by which a near hit may miss: half a cell of a 12 x 12 map."""
OVERLAPS = (0.1, 0.25, 0.3, 0.5)


class Localised(NamedTuple):
    """How one method did on each of N boxes.

    Shapes:
        hit: float (N,), the hottest place lies in the box: 0 or 1, or between over several seeds
        near_hit: float (N,), the same with ``TOLERANCE`` on every side
        iou: float (N,), intersection over union of the box and that around the hottest region
        iobb: float (N,), intersection over the area of the latter
        pixel_auc: float (N,), chance that a place in the box is hotter than one outside all boxes
    """

    hit: NDArray[np.float64]
    near_hit: NDArray[np.float64]
    iou: NDArray[np.float64]
    iobb: NDArray[np.float64]
    pixel_auc: NDArray[np.float64]


def measure(maps: Sequence[NDArray[np.floating]], cases: Sequence[BoxCase]) -> Localised:
    """Measure one map (h, w) for each case, in their order."""
    rows = [_measure_one(heatmap, case) for heatmap, case in zip(maps, cases, strict=True)]
    return Localised(*(np.array(column, dtype=np.float64) for column in zip(*rows, strict=True)))


def _measure_one(heatmap: NDArray[np.floating], case: BoxCase) -> tuple[float, ...]:
    raster = interpolate(heatmap)
    found = hottest_box(raster)
    shared = _intersection(found, case.box[1:])
    area = found[2] * found[3]
    inside = box_mask(case.box)
    counted = inside | ~np.logical_or.reduce([inside, *(box_mask(box) for box in case.others)])
    return (
        # Of the map itself: interpolation lowers every peak but those at the border.
        float(points_at_a_box(heatmap, [case.box[1:]], tolerance=0.0)),
        float(points_at_a_box(heatmap, [case.box[1:]], tolerance=TOLERANCE)),
        shared / (area + case.box.width * case.box.height - shared),
        shared / area,
        auc(inside[counted], raster[counted]),
    )


def interpolate(heatmap: NDArray[np.floating]) -> NDArray[np.float32]:
    """Bring a map (h, w) to the raster on which all are measured."""
    size = (RASTER, RASTER)
    return cv2.resize(heatmap.astype(np.float32), size, interpolation=cv2.INTER_LINEAR).astype(
        np.float32, copy=False
    )


def hottest_box(raster: NDArray[np.float32], share: float = HOTTEST_SHARE) -> Box:
    """Draw a box around the largest connected part of the hottest ``share`` of a raster.

    Returns:
        (x, y, width, height) as parts of the image.
    """
    bound = np.quantile(raster, 1 - share)
    hot = (raster >= bound) & (raster > raster.min())  # a map with few values above its least
    if not hot.any():
        return 0.0, 0.0, 1.0, 1.0
    _, _, parts, _ = cv2.connectedComponentsWithStats(hot.astype(np.uint8), connectivity=8)
    largest = parts[1 + int(np.argmax(parts[1:, cv2.CC_STAT_AREA]))]
    rows, columns = raster.shape
    left, top, width, height = (int(value) for value in largest[:4])
    return left / columns, top / rows, width / columns, height / rows


def box_mask(box: LesionBox) -> NDArray[np.bool_]:
    """Mark the places of the raster whose centres lie in a box; at least the nearest one."""
    centres = (np.arange(RASTER) + 0.5) / RASTER
    across = (centres >= box.left) & (centres <= box.left + box.width)
    down = (centres >= box.top) & (centres <= box.top + box.height)
    if not across.any():
        across[np.argmin(np.abs(centres - box.left - box.width / 2))] = True
    if not down.any():
        down[np.argmin(np.abs(centres - box.top - box.height / 2))] = True
    return down[:, None] & across


def peak(heatmap: NDArray[np.floating]) -> tuple[float, float]:
    """Give the centre of the hottest cell of (h, w) as (x, y), parts of the image."""
    row, column = np.unravel_index(int(np.argmax(heatmap)), heatmap.shape)
    return (float(column) + 0.5) / heatmap.shape[1], (float(row) + 0.5) / heatmap.shape[0]


def points_at_a_box(
    heatmap: NDArray[np.floating], boxes: Sequence[Box], *, tolerance: float | None = None
) -> bool:
    """Say whether the hottest cell lies on a box.

    Args:
        heatmap: (h, w).
        boxes: (x, y, width, height) as parts of the image.
        tolerance: added on every side of a box; None is half a cell, the heatmap's own grain.
    """
    x, y = peak(heatmap)
    half_x = 0.5 / heatmap.shape[1] if tolerance is None else tolerance
    half_y = 0.5 / heatmap.shape[0] if tolerance is None else tolerance
    return any(
        left - half_x <= x <= left + width + half_x and top - half_y <= y <= top + height + half_y
        for left, top, width, height in boxes
    )


def _intersection(first: Box, second: Box) -> float:
    across = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    down = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    return max(across, 0.0) * max(down, 0.0)
