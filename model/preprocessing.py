"""Bring an image to the size and grey scale that an encoder was trained on.

Training, calibration and the worker all go through ``resize_and_stretch``, so that the model
meets the same pixels at the bench and at work. No torch here: the decode processes use it.
"""

from typing import Any, Literal, NamedTuple, Self

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

Affine = tuple[float, float, float, float, float, float]


class PreprocessingSpec(BaseModel):
    """What is done to an image before the encoder sees it; part of a bundle.

    ``mean`` and ``std`` apply after the stretch, so they are on the scale of [0, 1]. Encoders that
    were pretrained on colour standardise each channel themselves: for them they are 0 and 1.

    ``interpolation`` "pil_bicubic" resizes in eight bits, to the bit as Pillow's and so as the
    training of MedImageInsight did; "area" averages in float. Without ``stretch`` the grey scale
    stays as it came, full scale being 1, and the percentiles mean nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size_px: int = Field(ge=16, le=4096)
    low_percentile: float = Field(default=1.0, ge=0, lt=100)
    high_percentile: float = Field(default=99.0, gt=0, le=100)
    interpolation: Literal["area", "pil_bicubic"] = "area"
    stretch: bool = True
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
        pixels: float32 (S, S), standardised; (3, S, S) if the image has colour.
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
        image: (H, W), uint8, uint16 or float32; black is low. The scale of float32 is free where
            it is stretched in float, otherwise [0, 1]. With "pil_bicubic" also (H, W, 3) uint8.

    Returns:
        float32 (S, S) in [0, 1], or (3, S, S); all 0 if a stretched image has one value only.
    """
    in_eight_bits = spec.interpolation == "pil_bicubic"
    coloured = in_eight_bits and image.ndim == 3 and image.shape[2] == 3
    if not (image.ndim == 2 or coloured) or 0 in image.shape:
        raise ValueError(f"an image has two dimensions, not {image.shape}")
    if in_eight_bits:
        # 1 / 255 as a division, as everybody does: a product differs in the last bit.
        resized = resize_as_pillow(to_eight_bits(image), spec.size_px) / np.float32(255)
        scale = 1.0
    else:
        scale = 1.0 / float(np.iinfo(image.dtype).max) if image.dtype.kind == "u" else 1.0
        resized = _resize(image.astype(np.float32, copy=False), spec.size_px)
    if coloured:
        resized = np.ascontiguousarray(resized.transpose(2, 0, 1))
    if not spec.stretch:
        return np.clip(resized * np.float32(scale), 0.0, 1.0)
    low, high = map(float, np.percentile(resized, (spec.low_percentile, spec.high_percentile)))
    if (high - low) * scale < 1e-6:
        return np.zeros_like(resized, dtype=np.float32)
    stretched = (resized - np.float32(low)) / np.float32(high - low)
    return np.clip(stretched, 0.0, 1.0, out=stretched)


def prepare(image: NDArray[Any], spec: PreprocessingSpec) -> Prepared:
    """Turn an image (H, W) into the encoder's input: resized, stretched and standardised."""
    rows, columns = image.shape[:2]
    pixels = (resize_and_stretch(image, spec) - np.float32(spec.mean)) / np.float32(spec.std)
    return Prepared(pixels, (float(columns), 0.0, 0.0, 0.0, float(rows), 0.0))


def to_eight_bits(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Round a full scale of 1 (float) or 65535 (uint16) to one of 255; uint8 stays as it is."""
    if image.dtype == np.uint8:
        return image
    full_scale = 65535.0 if image.dtype == np.uint16 else 1.0
    return np.rint(np.clip(image / full_scale, 0.0, 1.0) * 255).astype(np.uint8)


def resize_as_pillow(image: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    """Resize (H, W) or (H, W, 3) to a square by Pillow's bicubic filter, which smooths first."""
    resized = Image.fromarray(image).resize((size_px, size_px), Image.Resampling.BICUBIC)
    return np.asarray(resized)


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
