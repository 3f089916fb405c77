"""Pick a few elements out of a data set of any size, in little memory.

pydicom reads a sequence of undefined length into objects, wanted or not, and an element of any
length into bytes: a sender could have gigabytes held for it. Here the rest is passed over, a
deflated data set is inflated a piece at a time, and what is kept has a bound.

Source: PS3.5 sections 7.1 and 7.5, annex A.5.
"""

import struct
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO, Protocol

from common.errors import MalformedInstanceError

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_PIXEL_GROUP = 0x7FE0
_LONG = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
_MAX_DEPTH = 64
_MAX_VALUE_BYTES = 0xFFFE  # longer text is cut there: the most that two bytes of length can tell
_MAX_SEQUENCE_BYTES = 1 << 20  # a longer sequence is passed over
_MAX_INFLATED_BYTES = 64 << 20  # of what stands before the pixels
_MAX_KEPT_BYTES = 4 << 20  # of all that is wanted; an element may be repeated without end
_MAX_ELEMENTS = 2_000_000  # a second and a half; thousands of frames that are described one by one
_CHUNK_BYTES = 1 << 16


class Source(Protocol):
    """Bytes that are read once, from the beginning to the end."""

    @property
    def at_hand(self) -> bytes:
        """The first bytes, as many as need no reading; they are to be read all the same."""
        ...

    def read(self, count: int) -> bytes:
        """Give the next bytes: all of them, or those that are left."""
        ...

    def skip(self, count: int) -> None:
        """Pass over bytes; raises EOFError if there are fewer."""
        ...

    def close(self) -> None:
        """Let go of the file. Safe to repeat."""
        ...


class FileSource:
    """A data set as it lies in a file, of which the beginning may be at hand."""

    def __init__(
        self, path: Path, start: int, head: bytes = b"", size_bytes: int | None = None
    ) -> None:
        """Take the file, where in it the data set begins, its first bytes and its length.

        Raises:
            OSError: there is no such file.
        """
        self._path = path
        self._start = start
        self._size_bytes = path.stat().st_size - start if size_bytes is None else size_bytes
        self.at_hand = head
        self._at = 0
        self._file: BinaryIO | None = None  # opened at need

    def read(self, count: int) -> bytes:
        """Give the next bytes: all of them, or those that are left."""
        at = self._at
        if at + count <= len(self.at_hand):
            data = self.at_hand[at : at + count]
        else:
            if self._file is None:
                self._file = self._path.open("rb")
            self._file.seek(self._start + at)
            data = self._file.read(count)
        self._at = at + len(data)
        return data

    def skip(self, count: int) -> None:
        """Pass over bytes without reading them."""
        self._at += count
        if self._at > self._size_bytes:
            raise EOFError

    def close(self) -> None:
        """Close the file. Safe to repeat."""
        if self._file is not None:
            self._file.close()


class InflatedSource:
    """A deflated data set, inflated as it is asked for."""

    at_hand = b""

    def __init__(self, path: Path, start: int) -> None:
        """Take the file, and where in it the data set begins.

        Raises:
            OSError: it cannot be opened.
        """
        self._file = path.open("rb")
        self._file.seek(start)
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._ready = b""
        self._at = self._inflated_bytes = 0

    def read(self, count: int) -> bytes:
        """Give the next bytes: all of them, or those that are left; few of them."""
        parts = []
        while count:
            part = self._some(count)
            if not part:
                break
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def skip(self, count: int) -> None:
        """Inflate bytes and forget them."""
        while count:
            part = self._some(count)
            if not part:
                raise EOFError
            count -= len(part)

    def close(self) -> None:
        """Close the file. Safe to repeat."""
        self._file.close()

    def _some(self, at_most: int) -> bytes:
        while self._at == len(self._ready):
            waiting = self._inflater.unconsumed_tail or self._file.read(_CHUNK_BYTES)
            self._ready, self._at = self._inflater.decompress(waiting, _CHUNK_BYTES), 0
            self._inflated_bytes += len(self._ready)
            if self._inflated_bytes > _MAX_INFLATED_BYTES:
                raise MalformedInstanceError("deflated header is larger than any header")
            if not self._ready and (not waiting or self._inflater.eof):
                return b""
        part = self._ready[self._at : self._at + at_most]
        self._at += len(part)
        return part


class Picked:
    """The wanted elements, one after the other as they were sent, and how they are encoded."""

    def __init__(self, source: Source, wanted: Collection[int], *, little_endian: bool) -> None:
        """Read up to the pixels.

        Raises:
            EOFError: the data set ends within an element.
            MalformedInstanceError: it cannot be followed.
        """
        self._source = source
        order = "<" if little_endian else ">"
        self._start = struct.Struct(f"{order}HH")
        self._explicit = struct.Struct(f"{order}HH2sH")
        self._short, self._long = struct.Struct(f"{order}H"), struct.Struct(f"{order}L")
        self.implicit = False
        self.elements = bytearray()
        self.values: dict[int, tuple[bytes, bytes]] = {}  # VR and value, of what is no sequence
        self.has_sequences = False
        self._is_first = True
        self._left = _MAX_ELEMENTS
        self._kept: bytearray | None = None  # of the sequence that is being kept
        tags = frozenset(wanted)
        self._pick_at_hand(source.at_hand, tags)
        self._pick(tags)

    def _pick_at_hand(self, data: bytes, wanted: frozenset[int]) -> None:
        """Pick as far as the bytes at hand hold nothing but short explicit values; leave the rest.

        ``_pick`` can do all of it, element by element at three times the cost.
        """
        if not (data[4:6].isalpha() and data[4:6].isupper()):
            return
        at, seen = 0, 0
        unpack, last = self._explicit.unpack_from, len(data) - 12
        while at <= last:
            group, element, vr, length = unpack(data, at)
            begin = at + 8
            if vr in _LONG:
                length = self._long.unpack_from(data, begin)[0]
                begin = at + 12
            if group == 0xFFFE or group >= _PIXEL_GROUP or length == _UNDEFINED:
                break
            end = begin + length
            tag = group << 16 | element
            if tag in wanted:
                if vr == b"SQ" or length > _MAX_VALUE_BYTES or end > len(data):
                    break
                self.elements += data[at:end]
                self.values[tag] = vr, data[begin:end]
            at, seen = end, seen + 1
        self._is_first = not seen
        self._left -= seen
        self._source.skip(at)

    def _pick(self, wanted: frozenset[int]) -> None:
        while True:
            start = self._source.read(8)
            if not start:
                return
            if self._is_first:  # senders have been met that write the other kind than they announce
                self.implicit = not start[4:6].isalpha() or not start[4:6].isupper()
                self._is_first = False
            tag, vr, length, head = self._head(start, implicit=self.implicit)
            if tag in _PIXELS:
                return
            if tag not in wanted:
                self._pass_value(vr, length)
            elif vr == b"SQ" or length == _UNDEFINED:
                self._keep_sequence(head, vr, length)
            else:
                self._keep_value(tag, vr, head, length)
            if len(self.elements) > _MAX_KEPT_BYTES:
                raise MalformedInstanceError("the same elements again and again")

    def _head(self, start: bytes, *, implicit: bool) -> tuple[int, bytes, int, bytes]:
        """Give tag, VR (none if implicit), length and all bytes of an element's head."""
        if len(start) < 8:
            raise EOFError
        self._left -= 1
        if not self._left:
            raise MalformedInstanceError("more elements before the pixels than in any header")
        group, element = self._start.unpack_from(start)
        tag = group << 16 | element
        if implicit or group == 0xFFFE:
            return tag, b"", self._long.unpack_from(start, 4)[0], start
        vr = start[4:6]
        if vr not in _LONG:
            return tag, vr, self._short.unpack_from(start, 6)[0], start
        rest = self._exactly(4)
        return tag, vr, self._long.unpack(rest)[0], start + rest

    def _keep_value(self, tag: int, vr: bytes, head: bytes, length: int) -> None:
        kept = min(length, _MAX_VALUE_BYTES)
        is_short = len(head) == 8 and not self.implicit
        told = (self._short if is_short else self._long).pack(kept)
        value = self._exactly(kept)
        self.elements += head[: -len(told)] + told + value
        self.values[tag] = vr, value
        self._source.skip(length - kept)

    def _keep_sequence(self, head: bytes, vr: bytes, length: int) -> None:
        """Keep a sequence whole, or not at all if it is larger than any that is needed."""
        self.has_sequences = True
        if length != _UNDEFINED and length > _MAX_SEQUENCE_BYTES:
            self._source.skip(length)
            return
        self._kept = bytearray(head)
        self._pass_value(vr, length)
        if self._kept is not None:
            self.elements += self._kept
        self._kept = None

    def _pass_value(self, vr: bytes, length: int) -> None:
        if length == _UNDEFINED:
            self._pass_sequence(implicit=self.implicit or vr == b"UN")
        else:
            self._pass_bytes(length)

    def _pass_sequence(self, *, implicit: bool) -> None:
        """Go through a sequence of undefined length, and those within it, to its end."""
        open_ones: list[tuple[bool, bool]] = [(False, implicit)]  # (is an item, is implicit)
        while open_ones:
            is_item, implicit = open_ones[-1]
            start = self._noted(8)
            tag, vr, length, head = self._head(start, implicit=implicit)
            if self._kept is not None:
                self._kept += head[8:]
            if tag == (_ITEM_END if is_item else _SEQUENCE_END):
                open_ones.pop()
            elif is_item == (tag >> 16 == 0xFFFE) or (not is_item and tag != _ITEM):
                raise MalformedInstanceError("a sequence cannot be followed")
            elif length != _UNDEFINED:
                self._pass_bytes(length)
            else:
                if len(open_ones) == _MAX_DEPTH:
                    raise MalformedInstanceError("sequences within sequences, too deep")
                open_ones.append((not is_item, implicit or vr == b"UN"))

    def _pass_bytes(self, length: int) -> None:
        if self._kept is not None and len(self._kept) + length <= _MAX_SEQUENCE_BYTES:
            self._noted(length)
        else:
            self._kept = None
            self._source.skip(length)

    def _noted(self, count: int) -> bytes:
        data = self._exactly(count)
        if self._kept is not None:
            self._kept += data
            if len(self._kept) > _MAX_SEQUENCE_BYTES:
                self._kept = None
        return data

    def _exactly(self, count: int) -> bytes:
        data = self._source.read(count)
        if len(data) < count:
            raise EOFError
        return data
