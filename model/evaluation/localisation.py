"""Does the heatmap point at the lesion?"""

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]


def peak(heatmap: NDArray[np.floating]) -> tuple[float, float]:
    """Give the centre of the hottest cell of (h, w) as (x, y), parts of the image."""
    row, column = np.unravel_index(int(np.argmax(heatmap)), heatmap.shape)
    return (float(column) + 0.5) / heatmap.shape[1], (float(row) + 0.5) / heatmap.shape[0]


def points_at_a_box(
    heatmap: NDArray[np.floating], boxes: list[Box], *, tolerance: float | None = None
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
