"""Turn stored values into what the reader sees: modality LUT, VOI, polarity."""

from os import PathLike

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from common.errors import UnreadablePixelsError
from common.pixels.frames import (
    DEFAULT_MAX_PIXELS,
    Geometry,
    read_geometry,
    read_stored_values,
)
from common.pixels.grey import apply_modality, apply_voi, stretch
from common.pixels.header import numbers, read_header, text


def read_pixels(
    path: str | PathLike[str], max_pixels: int = DEFAULT_MAX_PIXELS
) -> NDArray[np.float32]:
    """Read one single-frame greyscale image as the reader would see it.

    The header's VOI LUT or first window is applied, else the range of the valid pixels is used.
    Pixel padding takes no part in that range and is black. A window under which every pixel
    looks the same is no window that a reader would keep: it is ignored.

    Args:
        path: A DICOM file.
        max_pixels: Rows x columns x frames x samples that are decoded at most.

    Returns:
        float32 (H, W) in [0, 1]; 0 is black whatever the photometric interpretation.

    Raises:
        MalformedInstanceError: not DICOM.
        UnreadablePixelsError: no pixels, no decoder, cut off, or not single-frame greyscale.
        OversizedImageError: larger than ``max_pixels``; found before anything is decoded.

    Source: PS3.3 C.11.1 (modality LUT), C.11.2 (VOI LUT), C.7.6.3.1.2 (photometric
        interpretation), C.11.6 (presentation LUT shape), C.7.5.1.1.2 (pixel padding).
    """
    header = read_header(path)
    geometry = read_geometry(header, max_pixels)
    stored = read_stored_values(path, header, geometry)
    return render(stored, header, geometry)


def render(stored: NDArray[np.uint16], header: Dataset, geometry: Geometry) -> NDArray[np.float32]:
    """Map stored values (bit patterns, (H, W)) to what is displayed, by one table of all values."""
    values = values_of_patterns(geometry)
    present = np.bincount(stored.ravel(), minlength=len(values)) > 0
    padding = find_padding(header, values)
    valid = present & ~padding
    if not valid.any():
        raise UnreadablePixelsError("all pixels are padding")
    modality = apply_modality(values, header)
    shown = apply_voi(modality, header)
    if shown is None or np.ptp(shown[valid]) == 0:
        shown = stretch(modality, modality[valid])
    if is_inverted(header):
        shown = 1.0 - shown
    shown[padding] = 0.0
    return shown.astype(np.float32)[stored]


def is_inverted(header: Dataset) -> bool:
    """Say whether the lowest value is shown white.

    Presentation LUT Shape decides where it is present: in DX, MONOCHROME1 comes with INVERSE and
    both mean the same one inversion. DCMTK and dcm4che decide alike.
    """
    shape = text(header, "PresentationLUTShape").upper()
    if shape in ("IDENTITY", "INVERSE"):
        return shape == "INVERSE"
    return text(header, "PhotometricInterpretation") == "MONOCHROME1"


def values_of_patterns(geometry: Geometry) -> NDArray[np.float64]:
    """Give the stored value that each pattern of bits means; (2 ** bits stored,)."""
    patterns = 1 << geometry.bits_stored
    values = np.arange(patterns, dtype=np.float64)
    if geometry.is_signed:
        values[patterns // 2 :] -= patterns
    return values


def find_padding(header: Dataset, values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Mark the stored values from Pixel Padding Value to its range limit, in either order."""
    padding = numbers(header, "PixelPaddingValue")[:1]
    if not padding:
        return np.zeros(len(values), dtype=bool)
    limits = [
        _as_stored(value, values)
        for value in (*padding, *numbers(header, "PixelPaddingRangeLimit")[:1])
    ]
    return (values >= min(limits)) & (values <= max(limits))


def _as_stored(value: float, values: NDArray[np.float64]) -> float:
    """Undo the wrong sign of a padding value: US is written where the pixels are signed."""
    for candidate in (value, value - (1 << 16), value + (1 << 16)):
        if values.min() <= candidate <= values.max():
            return candidate
    return value
