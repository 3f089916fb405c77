"""Bring an image to the size and grey scale that an encoder was trained on.

Training, calibration and the worker all go through ``resize_and_stretch``, so that the model
meets the same pixels at the bench and at work. No torch here: the decode processes use it.
"""

from typing import Any, Literal, NamedTuple, Self

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

Affine = tuple[float, float, float, float, float, float]


class PreprocessingSpec(BaseModel):
    """What is done to an image before the encoder sees it; part of a bundle.

    ``mean`` and ``std`` apply after the stretch, so they are on the scale of [0, 1].
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size_px: int = Field(ge=16, le=4096)
    low_percentile: float = Field(default=1.0, ge=0, lt=100)
    high_percentile: float = Field(default=99.0, gt=0, le=100)
    interpolation: Literal["area"] = "area"
    mean: float = 0.5
    std: float = Field(default=0.25, gt=0)

    @model_validator(mode="after")
    def _percentiles_in_order(self) -> Self:
        if self.low_percentile >= self.high_percentile:
            raise ValueError("low_percentile must be below high_percentile")
        return self


class Prepared(NamedTuple):
    """The encoder's input, and the way back to the image.

    Attributes:
        pixels: float32 (S, S), standardised.
        affine: ``(a, b, c, d, e, f)`` with X = a*x + b*y + c and Y = d*x + e*y + f: from the input
            (x, y in [0, 1], origin in the top left corner, x to the right) to the image, in pixels
            counted from the outer corner of its first pixel, so that (1, 1) is (columns, rows).
    """

    pixels: NDArray[np.float32]
    affine: Affine


def resize_and_stretch(image: NDArray[Any], spec: PreprocessingSpec) -> NDArray[np.float32]:
    """Resize a whole image to a square and stretch its grey scale to [0, 1].

    The aspect ratio is not kept: the whole image becomes the square, so nothing is cut off and
    nothing is added. The percentiles are taken after resizing, at one size for every source:
    on the full image they would move with its noise, and so with its resolution.

    Args:
        image: (H, W), uint8, uint16 or float32; the scale is free, black is low.

    Returns:
        float32 (S, S) in [0, 1]; all 0 if the image has one grey value only.
    """
    if image.ndim != 2 or 0 in image.shape:
        raise ValueError(f"an image has two dimensions, not {image.shape}")
    scale = 1.0 / float(np.iinfo(image.dtype).max) if image.dtype.kind == "u" else 1.0
    resized = _resize(image.astype(np.float32, copy=False), spec.size_px)
    low, high = np.percentile(resized, (spec.low_percentile, spec.high_percentile))
    if (high - low) * scale < 1e-6:
        return np.zeros_like(resized)
    stretched = (resized - np.float32(low)) / np.float32(high - low)
    return np.clip(stretched, 0.0, 1.0, out=stretched)


def prepare(image: NDArray[np.float32], spec: PreprocessingSpec) -> Prepared:
    """Turn an image (H, W) into the encoder's input: resized, stretched and standardised."""
    rows, columns = image.shape
    pixels = (resize_and_stretch(image, spec) - np.float32(spec.mean)) / np.float32(spec.std)
    return Prepared(pixels, (float(columns), 0.0, 0.0, 0.0, float(rows), 0.0))


def _resize(image: NDArray[np.float32], size_px: int) -> NDArray[np.float32]:
    """Average areas where the image is larger than the square, interpolate where it is smaller."""
    # INTER_AREA falls back to plain interpolation as soon as one side grows: one step for each.
    rows, columns = min(image.shape[0], size_px), min(image.shape[1], size_px)
    if (rows, columns) != image.shape:
        shrunk = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
        image = shrunk.astype(np.float32, copy=False)
    if (rows, columns) != (size_px, size_px):
        grown = cv2.resize(image, (size_px, size_px), interpolation=cv2.INTER_LINEAR)
        image = grown.astype(np.float32, copy=False)
    return image
