"""Say whether two stored objects show the same pixels.

python -m dicom_listener.pixel_comparison FIRST SECOND MEMORY_BYTES

A process of its own (``dicom_listener.same_pixels``), with a deadline and a memory limit: decoders
have crashed on less than what a sender may send. Exit status 0: equal. 1: they differ, or nobody
can tell.
"""

import resource
import sys
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from common.errors import FirstreadError
from common.pixels.frames import read_geometry, read_stored_values
from common.pixels.header import PARSER_ERRORS, read_header, texts, transfer_syntax

# What turns the same stored values into another picture.
_MEANING = (
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "NumberOfFrames",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "BitsStored",
    "PixelRepresentation",
    "PresentationLUTShape",
    "RescaleSlope",
    "RescaleIntercept",
    "WindowCenter",
    "WindowWidth",
)


def compare(first: Path, second: Path, max_pixels: int) -> bool:
    """Compare two files: as encoded if the syntaxes are the same, else decoded."""
    headers = read_header(first), read_header(second)
    if any(texts(headers[0], word) != texts(headers[1], word) for word in _MEANING):
        return False
    if transfer_syntax(headers[0]) == transfer_syntax(headers[1]):
        encoded = _encoded(first), _encoded(second)
        if encoded[0] is not None and encoded[0] == encoded[1]:
            return True
    one, other = (
        read_stored_values(path, header, read_geometry(header, max_pixels))
        for path, header in zip((first, second), headers, strict=True)
    )
    return np.array_equal(one, other)


def _encoded(path: Path) -> bytes | None:
    dataset: Dataset = dcmread(path, specific_tags=["PixelData"])
    return dataset.get("PixelData")


def main() -> int:
    """Compare the two files named on the command line."""
    first, second, memory_bytes = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_AS, (int(memory_bytes), int(memory_bytes)))
    try:
        return 0 if compare(Path(first), Path(second), max_pixels=64_000_000) else 1
    except (FirstreadError, MemoryError, OSError, *PARSER_ERRORS):
        return 1


if __name__ == "__main__":
    sys.exit(main())
