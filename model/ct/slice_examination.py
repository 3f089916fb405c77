"""Take one slice of a series to the encoder's input; the job of a decoding child. No torch."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import ImageError
from model.bundles import Bundle
from model.ct.hounsfield import prepare_slice, read_hounsfield
from model.ct.hounsfield_window import HounsfieldWindow
from model.eligibility import Policy
from model.examination import Examined

# A chest has lung in it: under this everything would be soft tissue, or not in HU at all.
AIRY_HU = -700.0


def examine_slice(
    path: Path, bundle: Bundle, _policy: Policy, _rendition: Path, _max_pixels: int
) -> Examined:
    """Read and prepare one slice; whether the series is eligible was decided before.

    Raises:
        ImageError: the slice cannot be read; the message names its file.
        OSError: the file cannot be opened or read.
    """
    try:
        hounsfield = read_hounsfield(path)
    except ImageError as error:
        raise type(error)(f"{path.name}: {error}") from error
    rows, columns = hounsfield.shape
    window = bundle.hounsfield_window or HounsfieldWindow()
    pixels, affine = prepare_slice(hounsfield, window, bundle.preprocessing)
    return Examined(True, (), pixels, affine, rows, columns)


def has_air(pixels: NDArray[np.float32], bundle: Bundle) -> bool:
    """Say whether a prepared slice (S, S) shows anything as thin as lung."""
    window, spec = bundle.hounsfield_window or HounsfieldWindow(), bundle.preprocessing
    airy = (AIRY_HU - window.low_hu) / (window.high_hu - window.low_hu)
    return bool((pixels < (airy - spec.mean) / spec.std).any())
