"""Take one file to the encoder's input: eligibility, pixels, preprocessing. No torch."""

from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.errors import ImageError
from common.pixels import (
    DEFAULT_MAX_PIXELS,
    is_phantom,
    read_header,
    read_image_file,
    read_pixels,
    write_rendition,
)
from common.pixels.image_files import is_image_file
from model.bundles import Bundle
from model.eligibility import Judgement, Note, Policy, judge
from model.preprocessing import Affine, prepare


class Examined(NamedTuple):
    """What is known of an image before the model sees it.

    Attributes:
        eligible: Whether the pipeline was made for it.
        reasons: Refusals if it is not eligible, otherwise notes on missing tags.
        pixels: float32 (S, S), the encoder's input; None if not eligible.
        affine: From the encoder's input to image pixels, see ``Prepared``; None with ``pixels``.
        rows: Height of the image in pixels; None if its pixels were not read.
        columns: Width, likewise.
        rendition_written: Whether the page's picture was written.
    """

    eligible: bool
    reasons: tuple[str, ...]
    pixels: NDArray[np.float32] | None = None
    affine: Affine | None = None
    rows: int | None = None
    columns: int | None = None
    rendition_written: bool = False


def examine(
    path: str | PathLike[str],
    bundle: Bundle,
    policy: Policy,
    rendition: Path | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Examined:
    """Judge and prepare one DICOM, PNG or JPEG file for a bundle's encoder.

    An image that is not eligible still gets its rendition if its pixels can be read, since the
    page shows it; if they cannot, it is not eligible all the same and no error.

    Args:
        path: The file.
        bundle: Whose eligibility rules and preprocessing count.
        policy: What the site decided.
        rendition: Where to write the page's picture; None: nowhere.
        max_pixels: Larger images are refused before they are decoded.

    Raises:
        ImageError: an eligible image whose pixels cannot be read.
        MalformedInstanceError: not DICOM, PNG or JPEG.
        StorageUnavailableError: the rendition cannot be written.
        OSError: the file cannot be opened or read.
    """
    without_tags = is_image_file(path)
    if without_tags:
        judgement = Judgement(True, (str(Note.NO_TAGS),))
    else:
        judgement = judge(read_header(path), bundle.eligibility, policy)
    if not judgement.eligible and rendition is None:
        return Examined(False, judgement.reasons)
    try:
        read = read_image_file if without_tags else read_pixels
        image = read(path, max_pixels)
    except ImageError:
        if judgement.eligible:
            raise
        return Examined(False, judgement.reasons)
    if rendition is not None:
        write_rendition(image, rendition)
    rows, columns = image.shape
    pixels, affine = prepare(image, bundle.preprocessing) if judgement.eligible else (None, None)
    return Examined(
        judgement.eligible,
        judgement.reasons,
        pixels,
        affine,
        rows,
        columns,
        rendition is not None,
    )


def is_simulated(path: str | PathLike[str]) -> bool:
    """Say whether the simulator made this file, and so which pipeline it belongs to.

    Raises:
        MalformedInstanceError: not DICOM, PNG or JPEG.
        OSError: the file cannot be opened or read.
    """
    return not is_image_file(path) and is_phantom(read_header(path))
