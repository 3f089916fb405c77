"""Lay a few radiographs with boxes and the maps of several methods out side by side."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from model.evaluation.lesion_boxes import BoxedImage, LesionBox
from model.evaluation.localisation import Box, hottest_box, interpolate, peak

PANEL_PX, GAP_PX, HEAD_PX, LABEL_PX, FOOT_PX = 232, 6, 44, 120, 34
_BACKGROUND, _INK = 16, (215, 215, 215)
_LESION, _HOTTEST, _PEAK = (120, 230, 120), (250, 200, 80), (255, 255, 255)
_OPACITY = 0.55


class Column(NamedTuple):
    """One method: its name and, for each image, a heatmap (h, w) in [0, 1] to draw."""

    name: str
    maps: Sequence[NDArray[np.floating]]


def draw_grid(
    images: Sequence[BoxedImage], grey: Sequence[NDArray[np.float32]], columns: Sequence[Column]
) -> NDArray[np.uint8]:
    """Draw one row an image: plain with its boxes, then each method's map on an absolute scale.

    Args:
        images: Their boxes and findings.
        grey: One (H, W) in [0, 1] for each image.
        columns: One map for each image.

    Returns:
        uint8 (H', W', 3), BGR as OpenCV has it.
    """
    head = _headings(["lesion boxes", *(column.name for column in columns)])
    rows = [head]
    for number, image in enumerate(images):
        panels = [_panel(grey[number], None, image.boxes)]
        panels += [_panel(grey[number], column.maps[number], image.boxes) for column in columns]
        rows.append(np.hstack([_label(image), *panels]))
    return np.vstack([*rows, _foot(head.shape[1])])


def write_picture(picture: NDArray[np.uint8], path: Path) -> None:
    """Write a picture as PNG."""
    path.write_bytes(cv2.imencode(".png", picture)[1].tobytes())


def one_image_a_finding(images: Sequence[BoxedImage], count: int) -> list[int]:
    """Choose images of different patients, one of each finding, the frequent findings first.

    Images with that finding alone are taken before others.
    """
    of_image = [{box.finding for box in image.boxes} for image in images]
    frequency = Counter(finding for findings in of_image for finding in findings)
    chosen: list[int] = []
    for finding, _ in frequency.most_common():
        seen = {images[row].patient_id for row in chosen}
        free = [
            number
            for number, findings in enumerate(of_image)
            if finding in findings and images[number].patient_id not in seen
        ]
        if free and len(chosen) < count:
            chosen.append(min(free, key=lambda number: len(of_image[number])))
    return sorted(chosen)


def _panel(
    grey: NDArray[np.float32], heatmap: NDArray[np.floating] | None, boxes: Sequence[LesionBox]
) -> NDArray[np.uint8]:
    size = (PANEL_PX, PANEL_PX)
    shown = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    panel = np.repeat((shown * 255)[..., None], 3, axis=2).astype(np.float32)
    if heatmap is not None:
        heat = cv2.resize(heatmap.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        heat = np.clip(heat, 0.0, 1.0)
        steps = np.rint(85 + heat * 170).astype(np.uint8)  # darker steps would darken lung
        colours = cv2.applyColorMap(steps, cv2.COLORMAP_INFERNO).astype(np.float32)
        opacity = _OPACITY * heat[..., None]
        panel = panel * (1 - opacity) + colours * opacity
    drawn = np.ascontiguousarray(np.rint(panel), dtype=np.uint8)
    for box in boxes:
        _rectangle(drawn, box[1:], _LESION, 2)
    if heatmap is not None:
        _rectangle(drawn, hottest_box(interpolate(heatmap)), _HOTTEST, 1)
        x, y = peak(heatmap)
        at = (round(x * PANEL_PX), round(y * PANEL_PX))
        cv2.drawMarker(drawn, at, (0, 0, 0), cv2.MARKER_CROSS, 13, 3, cv2.LINE_AA)
        cv2.drawMarker(drawn, at, _PEAK, cv2.MARKER_CROSS, 11, 1, cv2.LINE_AA)
    padding = ((0, GAP_PX), (0, GAP_PX), (0, 0))
    return np.pad(drawn, padding, constant_values=_BACKGROUND)


def _rectangle(
    panel: NDArray[np.uint8], box: Box, colour: tuple[int, int, int], thickness: int
) -> None:
    left, top, width, height = (round(part * PANEL_PX) for part in box)
    cv2.rectangle(panel, (left, top), (left + width, top + height), colour, thickness)


def _headings(names: Sequence[str]) -> NDArray[np.uint8]:
    width = LABEL_PX + len(names) * (PANEL_PX + GAP_PX)
    strip = np.full((HEAD_PX, width, 3), _BACKGROUND, dtype=np.uint8)
    for number, name in enumerate(names):
        _write(strip, name, (LABEL_PX + number * (PANEL_PX + GAP_PX) + 2, 27))
    return strip


def _label(image: BoxedImage) -> NDArray[np.uint8]:
    label = np.full((PANEL_PX + GAP_PX, LABEL_PX, 3), _BACKGROUND, dtype=np.uint8)
    for line, finding in enumerate(dict.fromkeys(box.finding for box in image.boxes)):
        _write(label, finding, (8, 24 + 20 * line))
    return label


def _foot(width: int) -> NDArray[np.uint8]:
    strip = np.full((FOOT_PX, width, 3), _BACKGROUND, dtype=np.uint8)
    x = 8
    for words, colour in (
        ("lesion box", _LESION),
        ("box around the hottest 5 % of the image", _HOTTEST),
        ("+ hottest place", _PEAK),
        ("colour: the method's own scale from 0 to 1, never stretched per image", _INK),
    ):
        _write(strip, words, (x, 22), colour)
        x += 28 + cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)[0][0]
    return strip


def _write(
    picture: NDArray[np.uint8], words: str, at: tuple[int, int], colour: tuple[int, int, int] = _INK
) -> None:
    cv2.putText(picture, words, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)
