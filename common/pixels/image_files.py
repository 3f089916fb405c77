"""Read radiographs that came as PNG or JPEG: no tags, the pixels alone."""

import struct
import zlib
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from common.errors import OversizedImageError, UnreadablePixelsError
from common.pixels.frames import DEFAULT_MAX_PIXELS

# The bound is ours and checked right after the header is read; the library's own would only warn.
Image.MAX_IMAGE_PIXELS = None

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I")
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


def is_image_file(path: str | PathLike[str]) -> bool:
    """Say whether a file begins as a PNG or a JPEG does. Its name does not matter."""
    with Path(path).open("rb") as file:
        return file.read(8).startswith(_SIGNATURES)


def read_image_file(
    path: str | PathLike[str], max_pixels: int = DEFAULT_MAX_PIXELS
) -> NDArray[np.float32]:
    """Read a PNG or JPEG as one grey image.

    Colour becomes luminance, transparency lies over black, and the orientation that a camera
    noted is applied. Full scale of the file is 1: nothing is stretched.

    Returns:
        float32 (H, W) in [0, 1]; 0 is black.

    Raises:
        UnreadablePixelsError: neither format, cut off, or several frames.
        OversizedImageError: more pixels than ``max_pixels``; found before decoding.
        OSError: the file cannot be opened or read.
    """
    with Path(path).open("rb") as file:
        try:
            with Image.open(file, formats=("PNG", "JPEG")) as image:
                columns, rows = image.size
                if rows * columns > max_pixels:
                    raise OversizedImageError(
                        f"{rows} x {columns} pixels: more than the {max_pixels} that are allowed"
                    )
                if getattr(image, "n_frames", 1) != 1:
                    raise UnreadablePixelsError("several frames, not one")
                return _to_grey(image)
        except UnidentifiedImageError as error:
            raise UnreadablePixelsError("neither PNG nor JPEG") from error
        except (ValueError, SyntaxError, EOFError, struct.error, zlib.error) as error:
            raise UnreadablePixelsError(f"cannot be decoded: {error}") from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise UnreadablePixelsError(f"cannot be decoded: {error}") from error


def _to_grey(image: Image.Image) -> NDArray[np.float32]:
    image.load()
    upright = ImageOps.exif_transpose(image)
    if upright.mode in _SIXTEEN_BIT:
        return np.asarray(upright).astype(np.float32) / np.float32(65535)
    if upright.has_transparency_data:
        with_alpha = np.asarray(upright.convert("LA")).astype(np.float32)
        return with_alpha[..., 0] * with_alpha[..., 1] / np.float32(255**2)
    return np.asarray(upright.convert("L")).astype(np.float32) / np.float32(255)
