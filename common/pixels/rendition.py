"""The picture of a radiograph that the page shows: 16-bit grey PNG, bounded in size."""

import os
import tempfile
from os import PathLike
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from common.errors import StorageUnavailableError, UnreadablePixelsError

# Radiographs are noise to a string search: without it zlib takes a third of the time (100 ms, not
# 270, at 2048 x 1678), and differences between lines make the file the smaller one all the same.
_PNG_PARAMETERS = [
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP),
]


def write_rendition(
    image: NDArray[np.float32], path: str | PathLike[str], max_side_px: int = 2048
) -> None:
    """Write an image as 16-bit grey PNG, averaged down until its longer side fits.

    A reader sees the old file or the new one, never half of it; writing again is safe.

    Args:
        image: float32 (H, W) in [0, 1].
        path: Where to; its folder exists.
        max_side_px: Longest side of the PNG.

    Raises:
        StorageUnavailableError: the disk does not take it.
    """
    scale = max_side_px / max(image.shape)
    if scale < 1:
        rows, columns = (max(1, round(side * scale)) for side in image.shape)
        shrunk = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
        image = shrunk.astype(np.float32, copy=False)
    grey = np.rint(np.clip(image, 0.0, 1.0) * 65535).astype(np.uint16)
    _, encoded = cv2.imencode(".png", grey, _PNG_PARAMETERS)
    try:
        _write_atomically(encoded.tobytes(), Path(path))
    except OSError as error:
        raise StorageUnavailableError(f"rendition not written: {error.strerror}") from error


def read_rendition(path: str | PathLike[str]) -> NDArray[np.uint16]:
    """Read what ``write_rendition`` wrote: uint16 (H, W), 65535 is white.

    Raises:
        UnreadablePixelsError: not a 16-bit grey PNG.
        OSError: the file cannot be opened.
    """
    encoded = np.frombuffer(Path(path).read_bytes(), dtype=np.uint8)
    grey = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED) if encoded.size else None
    if grey is None or grey.dtype != np.uint16 or grey.ndim != 2:
        raise UnreadablePixelsError("not a 16-bit grey PNG")
    return grey.astype(np.uint16, copy=False)


def _write_atomically(content: bytes, path: Path) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
