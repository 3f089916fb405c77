"""Decode the one frame of a radiograph to stored values, within bounds set before decoding."""

import sys
import zlib
from collections.abc import Callable
from os import PathLike
from threading import Lock, get_ident
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from common.errors import OversizedImageError, UnreadablePixelsError
from common.pixels.codestreams import read_codestream_header, require_end, without_boxes
from common.pixels.header import VALUE_ERRORS, numbers, read_elements, text, transfer_syntax

DEFAULT_MAX_PIXELS = 64_000_000

_hook_is_ours = Lock()


def _decode_htj2k(codestream: bytes) -> NDArray[Any]:
    """Decode, and raise what imagecodecs tells Python's hook for unraisable errors alone.

    It copies the lines out in a function that cannot raise: where that meets damage, the lines
    that are left stay black, and the image would be taken for a dark one.
    """
    with _hook_is_ours:
        told: list[str] = []
        others, thread = sys.unraisablehook, get_ident()

        def listen(unraisable: "sys.UnraisableHookArgs") -> None:
            if get_ident() == thread:
                told.append(str(unraisable.exc_value))
            else:
                others(unraisable)

        sys.unraisablehook = listen
        try:
            decoded = imagecodecs.htj2k_decode(codestream)
        finally:
            sys.unraisablehook = others
    if told:
        raise RuntimeError(f"decoded in part: {told[0]}")
    return decoded


# imagecodecs, not pydicom's plugins: it decodes each of these, 12-bit and progressive JPEG among
# them, leaves the GIL free, and is the faster (docs/decisions/0005-decoders.md has the times).
_JPEG_PROGRESSIONS = ("1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55")  # retired, still met
_CODESTREAM_DECODERS: dict[str, Callable[[bytes], NDArray[Any]]] = {
    # libjpeg-turbo alone, which takes 2 to 16 bits: jpeg_decode tries another decoder where that
    # refuses, and that one reads beyond its input and dies of it.
    **dict.fromkeys((JPEGBaseline8Bit, JPEGExtended12Bit), imagecodecs.jpeg8_decode),
    **dict.fromkeys((JPEGLossless, JPEGLosslessSV1), imagecodecs.jpeg8_decode),
    **dict.fromkeys(_JPEG_PROGRESSIONS, imagecodecs.jpeg8_decode),
    **dict.fromkeys((JPEGLSLossless, JPEGLSNearLossless), imagecodecs.jpegls_decode),
    **dict.fromkeys((JPEG2000, JPEG2000Lossless), imagecodecs.jpeg2k_decode),
    **dict.fromkeys((HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL), _decode_htj2k),
}
_ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"
_DEFLATED_FRAME = "1.2.840.10008.1.2.8.1"
_NATIVE = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
# Beside its pixels a data set holds little; a deflated one is inflated no further than this.
_MAX_OTHER_BYTES = 64 << 20


class Geometry(NamedTuple):
    """How one greyscale frame is stored; all values are checked against one another."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool

    @property
    def frame_bytes(self) -> int:
        """Bytes of the frame once decoded."""
        return self.rows * self.columns * self.bits_allocated // 8


def read_geometry(header: Dataset, max_pixels: int = DEFAULT_MAX_PIXELS) -> Geometry:
    """Check that a header describes one greyscale frame of 8 to 16 bits, of bearable size.

    Raises:
        UnreadablePixelsError: a needed value is missing or impossible, colour, several frames.
        OversizedImageError: more samples than ``max_pixels``.
    """
    rows, columns = _integer(header, "Rows"), _integer(header, "Columns")
    frames = _integer(header, "NumberOfFrames", 1)
    samples = _integer(header, "SamplesPerPixel", 1)
    if min(rows, columns, frames, samples) < 1:
        raise UnreadablePixelsError(f"impossible size: {rows} rows, {columns} columns")
    if rows * columns * frames * samples > max_pixels:
        raise OversizedImageError(
            f"{rows} x {columns} pixels, {frames} frames, {samples} samples:"
            f" more than the {max_pixels} that are allowed"
        )
    photometric = text(header, "PhotometricInterpretation") or "none"
    if samples != 1 or not photometric.startswith("MONOCHROME"):
        raise UnreadablePixelsError(f"not greyscale: {samples} samples, {photometric}")
    if frames != 1:
        raise UnreadablePixelsError(f"{frames} frames, not one")
    allocated = _integer(header, "BitsAllocated")
    stored = _integer(header, "BitsStored", allocated)
    high_bit = _integer(header, "HighBit", stored - 1)
    if allocated not in (8, 16) or not 1 <= stored <= high_bit + 1 <= allocated:
        raise UnreadablePixelsError(
            f"{stored} bits stored up to bit {high_bit} of {allocated}: not 8 to 16 bit greyscale"
        )
    signed = _integer(header, "PixelRepresentation", 0) == 1
    return Geometry(rows, columns, allocated, stored, high_bit, signed)


def read_stored_values(
    path: str | PathLike[str], header: Dataset, geometry: Geometry
) -> NDArray[np.uint16]:
    """Decode the frame to the bit patterns of its stored values.

    Returns:
        uint16 (H, W): the bits stored, right-aligned; overlay bits are gone and negative values
        are in two's complement of ``bits_stored`` bits.

    Raises:
        UnreadablePixelsError: no pixels, too few bytes, an unknown syntax or broken compression.
    """
    elements = read_elements(path, ["PixelData"], geometry.frame_bytes + _MAX_OTHER_BYTES)
    try:
        element = elements["PixelData"]
    except VALUE_ERRORS as error:
        raise UnreadablePixelsError("no pixel data, or cut off within them") from error
    if not element.value:
        raise UnreadablePixelsError("no pixel data")
    if not isinstance(element.value, bytes):  # its VR says text, or a sequence
        raise UnreadablePixelsError("pixel data that are no bytes")
    syntax = transfer_syntax(header)
    if syntax is None or syntax in _NATIVE:
        values = _unpack(element, header, geometry, syntax)
    else:
        values = _decompress(element.value, geometry, syntax)
    shift = geometry.high_bit + 1 - geometry.bits_stored
    if shift:
        values = values >> shift
    if geometry.bits_stored < 8 * values.dtype.itemsize:
        values = values & values.dtype.type((1 << geometry.bits_stored) - 1)
    return values.reshape(geometry.rows, geometry.columns).astype(np.uint16, copy=False)


def _integer(header: Dataset, keyword: str, default: int | None = None) -> int:
    """Return a whole number that the header must hold once, or the default if it is absent."""
    if default is not None and not text(header, keyword):
        return default
    values = numbers(header, keyword)
    if len(values) != 1 or not values[0].is_integer():
        raise UnreadablePixelsError(f"{keyword} is missing or not one whole number")
    return int(values[0])


def _unpack(
    element: DataElement, header: Dataset, geometry: Geometry, syntax: UID | None
) -> NDArray[Any]:
    """Return native pixels. More bytes than needed are padding, fewer are an error."""
    if element.is_undefined_length:
        raise UnreadablePixelsError("compressed pixels, but no compressed transfer syntax is named")
    big_endian = syntax == ExplicitVRBigEndian
    if syntax is None:
        big_endian = header.original_encoding[1] is False
    data = element.value
    if big_endian and geometry.bits_allocated == 8 and element.VR == "OW":
        # PS3.5 8.1.2: bytes travel as words, and so swapped.
        if len(data) % 2:
            raise UnreadablePixelsError("an odd number of bytes in 16-bit words")
        data = np.frombuffer(data, np.uint8).reshape(-1, 2)[:, ::-1].tobytes()
    return _as_cells(data, geometry, big_endian=big_endian)


def _as_cells(data: bytes, geometry: Geometry, *, big_endian: bool = False) -> NDArray[Any]:
    if len(data) < geometry.frame_bytes:
        raise UnreadablePixelsError(
            f"{len(data)} bytes of pixels where {geometry.frame_bytes} are declared"
        )
    dtype = np.dtype(np.uint8 if geometry.bits_allocated == 8 else np.uint16)
    stored = dtype.newbyteorder(">" if big_endian else "<")
    cells = np.frombuffer(data, stored, count=geometry.rows * geometry.columns)
    return cells.astype(dtype, copy=False)


def _decompress(data: bytes, geometry: Geometry, syntax: UID) -> NDArray[Any]:
    """Return the cells of a compressed frame; its own header must agree with the data set's."""
    try:
        frame = next(generate_frames(data, number_of_frames=1))
        if syntax == _ENCAPSULATED_UNCOMPRESSED:
            return _as_cells(frame, geometry)
        if syntax == _DEFLATED_FRAME:
            inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(frame, geometry.frame_bytes)
            return _as_cells(inflated, geometry)
        if syntax == RLELossless:
            return _as_cells(_decode_run_lengths(frame, geometry), geometry)
        decode = _CODESTREAM_DECODERS.get(syntax)
        if decode is None:
            raise UnreadablePixelsError(f"no decoder for transfer syntax {syntax}")
        return _decode_codestream(frame, geometry, decode)
    except (*VALUE_ERRORS, RuntimeError, StopIteration) as error:
        raise UnreadablePixelsError(f"compressed pixels cannot be decoded: {error}") from error


def _decode_run_lengths(frame: bytes, geometry: Geometry) -> bytes:
    """Return little endian cells. The padding byte is not always the zero that it should be."""
    cell = "u1" if geometry.bits_allocated == 8 else "<u2"
    try:
        return bytes(imagecodecs.dicomrle_decode(frame, cell, out=geometry.frame_bytes))
    except RuntimeError:
        return bytes(imagecodecs.dicomrle_decode(frame[:-1], cell, out=geometry.frame_bytes))


def _decode_codestream(
    frame: bytes, geometry: Geometry, decode: Callable[[bytes], NDArray[Any]]
) -> NDArray[Any]:
    frame = without_boxes(frame)
    found = read_codestream_header(frame)
    declared = (geometry.rows, geometry.columns, 1)
    if found[:3] != declared:
        raise UnreadablePixelsError(
            f"the compressed image is {found.rows} x {found.columns} with {found.components}"
            f" components, the data set says {geometry.rows} x {geometry.columns} with 1"
        )
    if found.precision > geometry.bits_allocated:
        raise UnreadablePixelsError(f"{found.precision} bits compressed into fewer")
    require_end(frame)
    decoded = decode(frame)
    if decoded.shape != declared[:2] or decoded.dtype.kind not in "iu":
        raise UnreadablePixelsError(f"decoded to {decoded.shape} {decoded.dtype}")
    return decoded.view(f"u{decoded.dtype.itemsize}")
