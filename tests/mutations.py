"""Seeded harm to DICOM bytes: data sets, and the byte streams of associations."""

import random
import struct
from collections.abc import Callable, Sequence

from tests.raw_peer import ABORT, RELEASE_RQ, pdu, pdv

# Numbers that parsers stumble over: nothing, one, the ends of each width, the undefined length.
_LENGTHS = (0, 1, 2, 3, 0x7F, 0x8000, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
_TEXTS = (
    b"",
    b"\0" * 64,
    b"../../../../etc/passwd",
    b"/etc/passwd\0",
    b"1.2.840." + b"9" * 80,
    b"1..2.",
    b"%s%n%x\\..\\..\\NUL",
    b"\xff\xfe\x1b$B\xc3\x28",
    b"A" * 5000,
)
_VRS = (b"SQ", b"UN", b"OB", b"OW", b"UI", b"DS", b"IS", b"PN", b"AT", b"FD", b"ZZ", b"\0\0", b"UT")
_NUMBERS = {"Rows": 0x0010, "Columns": 0x0011, "BitsAllocated": 0x0100, "SamplesPerPixel": 0x0002}

Mutation = Callable[[bytearray, random.Random], None]


def mutate_object(data: bytes, chooser: random.Random) -> bytes:
    """Harm an Explicit VR Little Endian data set in one to three ways."""
    changed = bytearray(data)
    for _ in range(chooser.randint(1, 3)):
        chooser.choice(_OBJECT)(changed, chooser)
    return bytes(changed)


def mutate_stream(parts: Sequence[bytes], chooser: random.Random) -> bytes:
    """Harm a stream of PDUs, given one by one, in one to three ways."""
    pieces = [bytearray(part) for part in parts]
    for _ in range(chooser.randint(1, 3)):
        chooser.choice(_STREAM)(pieces, chooser)
    return b"".join(pieces)


def element_positions(data: bytes | bytearray) -> list[int]:
    """Find where the elements of an Explicit VR Little Endian data set begin."""
    found, at = [], 0
    while at + 8 <= len(data):
        found.append(at)
        if bytes(data[at + 4 : at + 6]) in (b"OB", b"OW", b"SQ", b"UN", b"UT", b"OF", b"UC"):
            if at + 12 > len(data):
                break
            length = struct.unpack_from("<L", data, at + 8)[0]
            at += 12 + (0 if length == 0xFFFFFFFF else length)
        else:
            at += 8 + struct.unpack_from("<H", data, at + 6)[0]
    return found


def _somewhere(data: bytearray, chooser: random.Random) -> int:
    """Choose a place, mostly in the head: a pixel is only another pixel."""
    most = min(len(data), 800) if chooser.random() < 0.9 else len(data)
    return chooser.randrange(max(1, most))


def _element(data: bytearray, chooser: random.Random) -> int:
    return chooser.choice(element_positions(data) or [0])


def _flip(data: bytearray, chooser: random.Random) -> None:
    for _ in range(chooser.randint(1, 8)):
        if data:
            data[min(_somewhere(data, chooser), len(data) - 1)] = chooser.randrange(256)


def _cut(data: bytearray, chooser: random.Random) -> None:
    del data[_somewhere(data, chooser) :]


def _remove(data: bytearray, chooser: random.Random) -> None:
    at = _somewhere(data, chooser)
    del data[at : at + chooser.choice([1, 2, 8, 100])]


def _insert(data: bytearray, chooser: random.Random) -> None:
    at = _somewhere(data, chooser)
    data[at:at] = chooser.randbytes(chooser.choice([1, 2, 3, 8, 100, 3000]))


def _lie_about_length(data: bytearray, chooser: random.Random) -> None:
    at = _element(data, chooser)
    length = chooser.choice(_LENGTHS)
    if len(data) >= at + 12 and bytes(data[at + 4 : at + 6]) in (b"OB", b"OW", b"SQ", b"UN"):
        struct.pack_into("<L", data, at + 8, length)
    elif len(data) >= at + 8:
        struct.pack_into("<H", data, at + 6, length & 0xFFFF)


def _change_vr(data: bytearray, chooser: random.Random) -> None:
    at = _element(data, chooser)
    data[at + 4 : at + 6] = chooser.choice(_VRS)


def _swap_elements(data: bytearray, chooser: random.Random) -> None:
    places = element_positions(data)
    if len(places) < 3:
        return
    index = chooser.randrange(len(places) - 2)
    first, second, end = places[index : index + 3]
    data[first:end] = data[second:end] + data[first:second]


def _repeat_element(data: bytearray, chooser: random.Random) -> None:
    places = element_positions(data)
    if len(places) < 2:
        return
    index = chooser.randrange(len(places) - 1)
    part = bytes(data[places[index] : places[index + 1]])
    data[places[index] : places[index]] = part * chooser.choice([1, 2, 500])


def _change_text(data: bytearray, chooser: random.Random) -> None:
    """Put another value where a short one stands, its length told truly."""
    places = element_positions(data)[:-1]
    if not places:
        return
    at = chooser.choice(places)
    if bytes(data[at + 4 : at + 6]) in (b"OB", b"OW", b"SQ", b"UN"):
        return
    length = struct.unpack_from("<H", data, at + 6)[0]
    value = chooser.choice(_TEXTS)
    value += b"\0" * (len(value) % 2)
    data[at + 6 : at + 8 + length] = struct.pack("<H", len(value)) + value


def _nest(data: bytearray, chooser: random.Random) -> None:
    """Open sequences within sequences, of undefined length, and perhaps never close them."""
    depth = chooser.choice([1, 5, 50, 2000])
    start = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    end = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    at = _element(data, chooser)
    data[at:at] = start * depth + (end * depth if chooser.random() < 0.5 else b"")


def _declare_huge(data: bytearray, chooser: random.Random) -> None:
    """Say of the image that it is as large as can be said."""
    for element in chooser.sample(list(_NUMBERS.values()), 2):
        at = data.find(struct.pack("<HH", 0x0028, element) + b"US")
        if 0 <= at <= len(data) - 10:
            struct.pack_into("<H", data, at + 8, chooser.choice([0, 1, 3, 0x8000, 0xFFFF]))


_OBJECT: tuple[Mutation, ...] = (
    *(_flip, _cut, _remove, _insert, _lie_about_length, _lie_about_length, _change_vr),
    *(_swap_elements, _repeat_element, _change_text, _change_text, _nest, _declare_huge),
)


def _piece(pieces: list[bytearray], chooser: random.Random) -> bytearray:
    return chooser.choice(pieces) if pieces else bytearray()


def _flip_head(pieces: list[bytearray], chooser: random.Random) -> None:
    """Change bytes where types, lengths and contexts stand."""
    piece = _piece(pieces, chooser)
    for _ in range(chooser.randint(1, 4)):
        if piece:
            piece[chooser.randrange(min(len(piece), 100))] = chooser.randrange(256)


def _flip_anywhere(pieces: list[bytearray], chooser: random.Random) -> None:
    _flip(_piece(pieces, chooser), chooser)


def _lie_about_pdu(pieces: list[bytearray], chooser: random.Random) -> None:
    piece = _piece(pieces, chooser)
    if len(piece) >= 6:
        struct.pack_into(">L", piece, 2, chooser.choice((*_LENGTHS, len(piece) + 1)))


def _lie_about_pdv(pieces: list[bytearray], chooser: random.Random) -> None:
    piece = _piece(pieces, chooser)
    if len(piece) >= 12 and piece[0] == 4:
        struct.pack_into(">L", piece, 6, chooser.choice((*_LENGTHS, len(piece) - 9)))


def _change_type(pieces: list[bytearray], chooser: random.Random) -> None:
    piece = _piece(pieces, chooser)
    if piece:
        piece[0] = chooser.randrange(12)


def _change_context(pieces: list[bytearray], chooser: random.Random) -> None:
    piece = _piece(pieces, chooser)
    if len(piece) >= 12:
        piece[10], piece[11] = chooser.randrange(256), chooser.randrange(8)


def _drop_piece(pieces: list[bytearray], chooser: random.Random) -> None:
    if len(pieces) > 1:
        del pieces[chooser.randrange(len(pieces))]


def _repeat_piece(pieces: list[bytearray], chooser: random.Random) -> None:
    if pieces:
        at = chooser.randrange(len(pieces))
        pieces[at:at] = [bytearray(pieces[at])] * chooser.choice([1, 20])


def _mix_pieces(pieces: list[bytearray], chooser: random.Random) -> None:
    chooser.shuffle(pieces)


def _add_piece(pieces: list[bytearray], chooser: random.Random) -> None:
    strange = chooser.choice(
        [
            pdu(b"\0\0\0\0", kind=RELEASE_RQ),
            pdu(b"\0\0\0\0", kind=ABORT),
            pdu(b"", kind=4),
            pdu(pdv(b"", command=True, last=True)),
            pdu(pdv(b"", command=False, last=True)),
            pdu(chooser.randbytes(40), kind=chooser.randrange(256)),
            pdu(*[pdv(b"", command=False, last=False)] * 5000),
            b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            chooser.randbytes(chooser.choice([1, 5, 6, 7, 1000])),
        ]
    )
    pieces.insert(chooser.randint(0, len(pieces)), bytearray(strange))


def _cut_stream(pieces: list[bytearray], chooser: random.Random) -> None:
    piece = _piece(pieces, chooser)
    if piece:
        del piece[chooser.randrange(len(piece)) :]


_STREAM = (
    *(_flip_head, _flip_head, _flip_anywhere, _lie_about_pdu, _lie_about_pdv, _change_type),
    *(_change_context, _drop_piece, _repeat_piece, _mix_pieces, _add_piece, _cut_stream),
)
