"""Draw a heatmap over its radiograph or slide, on an absolute scale with a legend."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from model.preprocessing import Affine

MAX_SIDE_PX = 1024
_OPACITY = 0.6
_LEGEND_WIDTH_PX = 96
_BAR_WIDTH_PX = 14
_BAR_PX = (80, 300)  # at least, at most
_BAR_TOP_PX, _LINE_PX = 40, 18
_INK = (200, 200, 200)
_LOOKED_AT = (96, 96, 96)
_FONT, _FONT_SIZE = cv2.FONT_HERSHEY_SIMPLEX, 0.42
_BACKGROUND = 16


def draw_overlay(
    grey: NDArray[np.uint16],
    heatmap: NDArray[np.floating],
    affine: Affine,
    *,
    size_px: tuple[int, int],
    caption: str = "",
) -> NDArray[np.uint8]:
    """Lay a heatmap over a radiograph: 0 leaves it as it is, 1 is bright and most opaque.

    Nothing is stretched to this image's own range, so two overlays can be compared.

    Args:
        grey: (h, w), a rendition of the image at any size; 65535 is white.
        heatmap: (rows, columns) in [0, 1] over the encoder's input.
        affine: From the encoder's input to pixels of the image, see ``Prepared``.
        size_px: Rows and columns of the image that the affine speaks of.
        caption: Written under the legend, folded between words; never cut off.

    Returns:
        uint8 (h', w', 3), BGR as OpenCV has it; the longer side of the radiograph at most 1024.
        Where the legend needs more rows than the radiograph has, the background fills them.
    """
    rows, columns = _shown_size(grey.shape)
    shown = cv2.resize(grey, (columns, rows), interpolation=cv2.INTER_AREA)
    radiograph = np.repeat((shown / 257.0).astype(np.float32)[..., None], 3, axis=2)
    return _blend(radiograph, heatmap, affine, size_px, caption)


def draw_colour_overlay(
    picture: NDArray[np.uint8],
    heatmap: NDArray[np.floating],
    affine: Affine,
    *,
    size_px: tuple[float, float],
    caption: str = "",
) -> NDArray[np.uint8]:
    """Lay a heatmap over an RGB picture (h, w, 3), as ``draw_overlay`` does over a radiograph.

    ``affine`` and ``size_px`` may be in any unit of length, if only in the same. Cells that are no
    number were not looked at: a line runs around those that were, so that nobody takes the rest
    for cold.
    """
    rows, columns = _shown_size(picture.shape)
    shown = cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_AREA)
    return _blend(shown[..., ::-1].astype(np.float32), heatmap, affine, size_px, caption)


def _shown_size(shape: tuple[int, ...]) -> tuple[int, int]:
    scale = min(1.0, MAX_SIDE_PX / max(shape[:2]))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def _blend(
    picture: NDArray[np.float32],
    heatmap: NDArray[np.floating],
    affine: Affine,
    size_px: tuple[float, float],
    caption: str,
) -> NDArray[np.uint8]:
    """Blend a BGR picture with the heatmap and put the legend beside it."""
    rows, columns = picture.shape[:2]
    scale = (rows / size_px[0], columns / size_px[1])
    heat = _spread(np.nan_to_num(heatmap, nan=0.0), affine, scale, (rows, columns))
    colours = _colour(heat)
    opacity = _OPACITY * heat[..., None]
    blended = np.rint(picture * (1 - opacity) + colours * opacity).astype(np.uint8)
    seen = np.isfinite(heatmap).astype(np.float32)
    if not seen.all():
        looked_at = _spread(seen, affine, scale, (rows, columns)) > 0.5
        edges, _ = cv2.findContours(
            looked_at.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(blended, edges, -1, _LOOKED_AT, 1)
    words = _fold(caption)
    least = _BAR_TOP_PX + _BAR_PX[0] + 28 + _LINE_PX * len(words)
    filling = ((0, max(0, least - rows)), (0, 0), (0, 0))
    blended = np.pad(blended, filling, constant_values=_BACKGROUND)
    return np.hstack([blended, _draw_legend(len(blended), words)])


def write_overlay(overlay: NDArray[np.uint8], path: Path) -> None:
    """Write an overlay as PNG."""
    path.write_bytes(cv2.imencode(".png", overlay)[1].tobytes())


def _spread(
    heatmap: NDArray[np.floating],
    affine: Affine,
    scale: tuple[float, float],
    shape: tuple[int, int],
) -> NDArray[np.float32]:
    """Interpolate the heatmap's cells over the picture, by the way that the pixels came."""
    cell_rows, cell_columns = heatmap.shape
    to_image = np.array([affine[:3], affine[3:], (0, 0, 1)], dtype=np.float64)
    to_picture = np.diag([scale[1], scale[0], 1.0])
    cells = np.diag([1 / cell_columns, 1 / cell_rows, 1.0])
    # OpenCV counts from the centre of the first pixel, the affine from its corner.
    half = np.array([(1, 0, 0.5), (0, 1, 0.5), (0, 0, 1)])
    forward = np.linalg.inv(half) @ to_picture @ to_image @ cells @ half
    spread = cv2.warpAffine(
        heatmap.astype(np.float32),
        forward[:2],
        (shape[1], shape[0]),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.clip(spread, 0.0, 1.0).astype(np.float32, copy=False)


def _colour(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    # The darkest third of the map would darken lung, and so look like a finding of its own.
    steps = np.rint(85 + heat * 170).astype(np.uint8)
    return cv2.applyColorMap(steps, cv2.COLORMAP_INFERNO).astype(np.float32)


def _draw_legend(rows: int, words: Sequence[str]) -> NDArray[np.uint8]:
    """Show the scale as it looks over mid grey, and the words under it."""
    legend = np.full((rows, _LEGEND_WIDTH_PX, 3), _BACKGROUND, dtype=np.uint8)
    top, left = _BAR_TOP_PX, 12
    bottom = min(rows - 28 - _LINE_PX * len(words), top + _BAR_PX[1])
    heat = np.linspace(1.0, 0.0, bottom - top, dtype=np.float32)[:, None]
    heat = np.repeat(heat, _BAR_WIDTH_PX, axis=1)
    opacity = _OPACITY * heat[..., None]
    bar = np.full((*heat.shape, 3), 96.0) * (1 - opacity) + _colour(heat) * opacity
    legend[top:bottom, left : left + _BAR_WIDTH_PX] = np.rint(bar).astype(np.uint8)
    for value in (0.0, 0.5, 1.0):
        row = round(bottom - value * (bottom - top))
        _write(legend, f"{value:.1f}", (left + _BAR_WIDTH_PX + 8, row + 5))
    _write(legend, "heatmap", (left, 24))
    for line, word in enumerate(words):
        _write(legend, word, (left, bottom + 28 + _LINE_PX * line))
    return legend


def _fold(caption: str) -> list[str]:
    """Fold a caption to the legend's width."""
    lines: list[str] = []
    for word in caption.split():
        longer = f"{lines[-1]} {word}" if lines else word
        (width, _), _ = cv2.getTextSize(longer, _FONT, _FONT_SIZE, 1)
        if lines and width <= _LEGEND_WIDTH_PX - 16:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _write(picture: NDArray[np.uint8], words: str, at: tuple[int, int]) -> None:
    cv2.putText(picture, words, at, _FONT, _FONT_SIZE, _INK, 1, cv2.LINE_AA)
