"""Read what a compressed image says of its own size before a decoder allocates for it."""

import struct
from typing import NamedTuple

from common.errors import UnreadablePixelsError

_JPEG_START = b"\xff\xd8"
_J2K_START = b"\xff\x4f\xff\x51"
_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_END = b"\xff\xd9"  # EOI of JPEG and JPEG-LS, EOC of JPEG 2000
_NO_FRAME_HEADER = (0xC4, 0xC8, 0xCC)  # DHT, JPG and DAC lie among the SOF markers
_JPEG_LS_FRAME = 0xF7
_START_OF_SCAN = 0xDA
_J2K_CODING, _J2K_QUANTISATION, _J2K_TILE_PART = 0xFF52, 0xFF5C, 0xFF90
_MOST_TILES = 65535  # a tile's number has 16 bits


class CodestreamHeader(NamedTuple):
    """Size in pixels, number of components and bits per sample, as the encoder wrote them."""

    rows: int
    columns: int
    components: int
    precision: int


def read_codestream_header(codestream: bytes) -> CodestreamHeader:
    """Read the frame header of a JPEG, JPEG-LS, JPEG 2000 or HTJ2K codestream.

    Raises:
        UnreadablePixelsError: none of these, cut off before its frame header, or in tiles that
            cannot be.

    Source: ITU-T T.81 B.2.2, T.87 C.2.2, T.800 A.5.1 and B.3.
    """
    try:
        if codestream.startswith(_JPEG_START):
            return _read_jpeg_header(codestream)
        codestream = without_boxes(codestream)  # not allowed in DICOM, yet written
        if codestream.startswith(_J2K_START):
            return _read_j2k_header(codestream)
    except (struct.error, IndexError) as error:
        raise UnreadablePixelsError("compressed pixels are cut off in their header") from error
    raise UnreadablePixelsError("compressed pixels are neither JPEG, JPEG-LS nor JPEG 2000")


def without_boxes(compressed: bytes) -> bytes:
    """Give the codestream within JP2 boxes: a decoder shall find no other than was checked."""
    if not compressed.startswith(_JP2_SIGNATURE):
        return compressed
    start = compressed.find(_J2K_START)
    return compressed[start:] if start > 0 else b""


def require_end(codestream: bytes) -> None:
    """Refuse a codestream without its end marker: JPEG decoders fill what is missing with grey.

    Raises:
        UnreadablePixelsError: the end marker is not where the padding starts.
    """
    # Encoded data never contain this marker; more than the one allowed byte of padding is seen.
    if _END not in codestream[-4096:].rstrip(b"\0")[-16:]:
        raise UnreadablePixelsError("compressed pixels are cut off: no end marker")


def _read_jpeg_header(codestream: bytes) -> CodestreamHeader:
    position = 2
    while True:
        if codestream[position] != 0xFF:
            raise UnreadablePixelsError("compressed pixels hold no valid JPEG marker")
        marker = codestream[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        length = struct.unpack_from(">H", codestream, position + 2)[0]
        is_frame = 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME_HEADER
        if is_frame or marker == _JPEG_LS_FRAME:
            precision, rows, columns, components = struct.unpack_from(
                ">BHHB", codestream, position + 4
            )
            return CodestreamHeader(rows, columns, components, precision)
        if marker == _START_OF_SCAN or length < 2:
            raise UnreadablePixelsError("compressed pixels hold no JPEG frame header")
        position += 2 + length


def _read_j2k_header(codestream: bytes) -> CodestreamHeader:
    right, bottom, left, top = struct.unpack_from(">IIII", codestream, 8)
    components, depth, across, down = struct.unpack_from(">HBBB", codestream, 40)
    if 0 in (across, down):  # decoders divide by them
        raise UnreadablePixelsError("compressed pixels in steps of no size")
    tiles = 1
    for axis, start, end in ((0, left, right), (4, top, bottom)):
        (size,) = struct.unpack_from(">I", codestream, 24 + axis)
        (origin,) = struct.unpack_from(">I", codestream, 32 + axis)
        if not (origin <= start < origin + size and start < end):
            raise UnreadablePixelsError("compressed pixels whose first tile holds none of them")
        tiles *= -(-(end - origin) // size)
    if tiles > _MOST_TILES:  # a decoder may count them for minutes
        raise UnreadablePixelsError(f"compressed pixels in {tiles} tiles")
    _check_quantisation(codestream)
    return CodestreamHeader(bottom - top, right - left, components, (depth & 0x7F) + 1)


def _check_quantisation(codestream: bytes) -> None:
    """Refuse an irreversible wavelet whose coefficients are said not to be quantised.

    There is no such thing (T.800 A.6.4), and OpenJPH reads beyond its memory for it.
    """
    position = 4 + struct.unpack_from(">H", codestream, 4)[0]  # behind SIZ
    is_irreversible, is_quantised = False, True
    while True:
        marker, length = struct.unpack_from(">HH", codestream, position)
        if marker == _J2K_TILE_PART:
            break
        if marker < 0xFF00 or length < 2:
            raise UnreadablePixelsError("compressed pixels hold no valid JPEG 2000 marker")
        if marker == _J2K_CODING:
            is_irreversible = codestream[position + 13] == 0
        if marker == _J2K_QUANTISATION:
            is_quantised = codestream[position + 4] & 0x1F != 0
        position += 2 + length
    if is_irreversible and not is_quantised:
        raise UnreadablePixelsError("compressed pixels in a wavelet that needs quantisation")
