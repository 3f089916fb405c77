"""Read one CT slice in Hounsfield units, and cut it to what the encoder sees. No torch."""

from os import PathLike

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from common.errors import UnreadablePixelsError
from common.pixels.frames import read_geometry, read_stored_values
from common.pixels.header import numbers, read_header
from common.pixels.reading import find_padding, values_of_patterns
from model.ct.hounsfield_window import HounsfieldWindow
from model.preprocessing import Prepared, PreprocessingSpec, prepare

MAX_SLICE_PIXELS = 2048 * 2048
AIR_HU = -1000.0


def read_hounsfield(path: str | PathLike[str]) -> NDArray[np.float32]:
    """Read one single-frame CT image in Hounsfield units; pixel padding becomes air.

    Returns:
        float32 (H, W), HU.

    Raises:
        UnreadablePixelsError: no pixels, no decoder, cut off, not greyscale, or no rescale.
        OversizedImageError: larger than ``MAX_SLICE_PIXELS``; found before anything is decoded.
        MalformedInstanceError: not DICOM.
        OSError: the file cannot be opened or read.

    Source: PS3.3 C.8.2.1 (CT image: the rescale gives HU), C.7.5.1.1.2 (pixel padding).
    """
    header = read_header(path)
    slope, intercept = read_rescale(header)
    geometry = read_geometry(header, MAX_SLICE_PIXELS)
    stored = read_stored_values(path, header, geometry)
    values = values_of_patterns(geometry)
    hounsfield = values * slope + intercept
    hounsfield[find_padding(header, values)] = AIR_HU
    return hounsfield.astype(np.float32)[stored]


def read_rescale(header: Dataset) -> tuple[float, float]:
    """Return slope and intercept to Hounsfield units.

    Raises:
        UnreadablePixelsError: one is missing or broken, the slope is 0, or the unit is another.
    """
    slope, intercept = numbers(header, "RescaleSlope"), numbers(header, "RescaleIntercept")
    if len(slope) != 1 or len(intercept) != 1 or slope[0] == 0:
        raise UnreadablePixelsError("RescaleSlope or RescaleIntercept is missing or impossible")
    return slope[0], intercept[0]


def prepare_slice(
    hounsfield: NDArray[np.float32], window: HounsfieldWindow, spec: PreprocessingSpec
) -> Prepared:
    """Cut a slice (H, W) in HU to the window, then resize and standardise it for the encoder."""
    return prepare(apply_window(hounsfield, window), spec)


def apply_window(hounsfield: NDArray[np.float32], window: HounsfieldWindow) -> NDArray[np.float32]:
    """Map HU to [0, 1], the same way for every slice of every scan."""
    scaled = (hounsfield - np.float32(window.low_hu)) / np.float32(window.high_hu - window.low_hu)
    return np.clip(scaled, 0.0, 1.0, out=scaled)
