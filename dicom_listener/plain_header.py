"""Read a header that holds nothing but plain text, which is nearly every one, without pydicom.

pydicom makes an object of each element and decodes it by its representation and character set:
most of what reading a header costs. Where a value could mean anything but its own ASCII letters,
the header is left to pydicom; where it cannot, both say the same.
"""

import re
from functools import lru_cache

from pydicom.datadict import dictionary_VR, tag_for_keyword

from common.pixels.header import PHANTOM_CREATOR, PHANTOM_GROUP
from dicom_listener.header_walk import Picked

_CREATOR = PHANTOM_GROUP << 16 | 0x0010
_CHARACTER_SET = 0x00080005
_ASCII_BELOW_128 = frozenset((b"", b"ISO_IR 6", b"ISO_IR 100", b"ISO_IR 192"))
_ODD = re.compile(rb"[^\0\x20-\x7e]")  # beyond ASCII, or a control character
_SEVERAL = frozenset(("AS", "CS", "DA", "DT", "IS", "LO", "PN", "SH", "TM", "UI"))


class PlainHeader:
    """Values by keyword, each as it was sent; several are a list."""

    def __init__(self, values: dict[int, tuple[bytes, bytes]]) -> None:
        self._values = values

    def __len__(self) -> int:
        """Count the elements."""
        return len(self._values)

    def get(self, key: str, /) -> str | list[str] | None:
        """Give the value of an element, None if there is none."""
        found = self._values.get(_tag(key))
        if found is None:
            return None
        value = found[1].decode("ascii")
        return value.split("\\") if "\\" in value else value


def plain_header(picked: Picked) -> PlainHeader | None:
    """See the elements as plain text; None if one of them may be anything else."""
    values = picked.values
    if picked.has_sequences:
        return None
    if values.get(_CHARACTER_SET, (b"", b""))[1].rstrip(b" \0") not in _ASCII_BELOW_128:
        return None
    for tag, (vr, value) in values.items():
        if _ODD.search(value):
            return None
        if tag >> 16 == PHANTOM_GROUP:
            if tag == _CREATOR and value.strip(b" \0") == PHANTOM_CREATOR.encode():
                return None  # the simulator's own
            continue
        known = _vr(tag)
        if known not in _SEVERAL or (vr and vr != known.encode()):
            return None
        if known == "PN" and b"=" in value:
            return None
    return PlainHeader(values)


@lru_cache(maxsize=128)
def _vr(tag: int) -> str:
    return dictionary_VR(tag)


@lru_cache(maxsize=128)
def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    return -1 if tag is None else tag
