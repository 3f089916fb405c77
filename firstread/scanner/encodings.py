"""Store one greyscale image in the ways that scanners do: bits, polarity, transfer syntax."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

Photometric = Literal["MONOCHROME1", "MONOCHROME2"]
Cells = NDArray[np.uint8] | NDArray[np.uint16]


def _encode_jpeg_lossless(cells: Cells, bits: int) -> bytes:
    stream = imagecodecs.jpeg8_encode(cells, lossless=True, predictor=1, bitspersample=bits)
    return bytes(stream)


def _encode_jpeg_ls(cells: Cells, _bits: int) -> bytes:
    return bytes(imagecodecs.jpegls_encode(cells))


def _encode_jpeg_2000(cells: Cells, bits: int) -> bytes:
    stream = imagecodecs.jpeg2k_encode(
        cells, level=0, codecformat="j2k", reversible=True, bitspersample=bits
    )
    return bytes(stream)


_CODESTREAM_ENCODERS: dict[UID, Callable[[Any, int], bytes]] = {
    JPEGLosslessSV1: _encode_jpeg_lossless,
    JPEGLSLossless: _encode_jpeg_ls,
    JPEG2000Lossless: _encode_jpeg_2000,
}


@dataclass(frozen=True)
class Encoding:
    """How one image is stored. JPEG-LS is used where the bits fill their cell: 8 and 16."""

    transfer_syntax: UID
    photometric: Photometric
    bits_stored: int

    def __str__(self) -> str:
        return f"{self.transfer_syntax.name}, {self.photometric}, {self.bits_stored} bit"


ENCODINGS = (
    Encoding(ExplicitVRLittleEndian, "MONOCHROME2", 12),
    Encoding(ImplicitVRLittleEndian, "MONOCHROME1", 10),
    Encoding(JPEGLosslessSV1, "MONOCHROME2", 14),
    Encoding(JPEG2000Lossless, "MONOCHROME1", 12),
    Encoding(RLELossless, "MONOCHROME2", 16),
    Encoding(JPEGLSLossless, "MONOCHROME1", 16),
    Encoding(DeflatedExplicitVRLittleEndian, "MONOCHROME2", 10),
    Encoding(ExplicitVRLittleEndian, "MONOCHROME1", 14),
    Encoding(JPEGLSLossless, "MONOCHROME2", 8),
    Encoding(ImplicitVRLittleEndian, "MONOCHROME2", 16),
    Encoding(JPEGLosslessSV1, "MONOCHROME1", 8),
    Encoding(RLELossless, "MONOCHROME1", 12),
    Encoding(JPEG2000Lossless, "MONOCHROME2", 16),
    Encoding(DeflatedExplicitVRLittleEndian, "MONOCHROME1", 8),
)


def quantise(image: NDArray[np.floating], encoding: Encoding) -> Cells:
    """Turn an image in [0, 1], 0 black, into stored values; MONOCHROME1 stores black highest."""
    top = 2**encoding.bits_stored - 1
    shades = np.clip(image, 0, 1)
    if encoding.photometric == "MONOCHROME1":
        shades = 1 - shades
    stored = np.rint(shades * top)
    return stored.astype(np.uint8) if encoding.bits_stored <= 8 else stored.astype(np.uint16)


def set_pixels(dataset: Dataset, cells: Cells, encoding: Encoding) -> None:
    """Put stored values and what describes them into a data set that has its file meta.

    Args:
        dataset: gets the Image Pixel module and the transfer syntax.
        cells: (H, W), 8 bits allocated if uint8, else 16.
        encoding: how to store them.
    """
    allocated = 8 * cells.dtype.itemsize
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = encoding.photometric
    dataset.Rows, dataset.Columns = cells.shape
    dataset.BitsAllocated = allocated
    dataset.BitsStored = encoding.bits_stored
    dataset.HighBit = encoding.bits_stored - 1
    dataset.PixelRepresentation = 0
    dataset.file_meta.TransferSyntaxUID = encoding.transfer_syntax
    dataset.PixelData = _pixel_data(cells, encoding)
    element = dataset["PixelData"]
    native_bytes = allocated == 8 and not encoding.transfer_syntax.is_implicit_VR
    element.VR = "OB" if encoding.transfer_syntax.is_compressed or native_bytes else "OW"
    element.is_undefined_length = encoding.transfer_syntax.is_encapsulated


def _pixel_data(cells: Cells, encoding: Encoding) -> bytes:
    syntax = encoding.transfer_syntax
    if syntax == RLELossless:
        return encapsulate([_encode_run_lengths(cells)])
    if syntax in _CODESTREAM_ENCODERS:
        frame = _CODESTREAM_ENCODERS[syntax](np.ascontiguousarray(cells), encoding.bits_stored)
        return encapsulate([frame])
    native = cells.astype(cells.dtype.newbyteorder("<"), copy=False).tobytes()
    return native + b"\0" * (len(native) % 2)


def _encode_run_lengths(cells: Cells) -> bytes:
    """Encode byte planes, the most significant first, each row by itself.

    Source: PS3.5 annex G.
    """
    big_endian = cells.astype(cells.dtype.newbyteorder(">"), copy=False)
    planes = big_endian.view(np.uint8).reshape(*cells.shape, cells.dtype.itemsize)
    segments = []
    for plane in range(cells.dtype.itemsize):
        rows = np.ascontiguousarray(planes[:, :, plane])
        segment = b"".join(bytes(imagecodecs.packbits_encode(row.tobytes())) for row in rows)
        segments.append(segment + b"\0" * (len(segment) % 2))
    offsets, position = [], 64
    for segment in segments:
        offsets.append(position)
        position += len(segment)
    table = [len(segments), *offsets, *([0] * (15 - len(offsets)))]
    return np.array(table, "<u4").tobytes() + b"".join(segments)
