"""A header of plain text says the same without pydicom as with it, or is left to pydicom."""

import struct
import warnings
from contextlib import closing
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.filereader import read_dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from common.errors import SenderError
from common.pixels.header import Header, items, text, texts
from dicom_listener.attributes import _KEYWORDS, _TAGS, read_attributes, read_received_header
from dicom_listener.header_walk import FileSource, Picked
from dicom_listener.plain_header import PlainHeader, plain_header
from dicom_listener.reception import Announced
from dicom_listener.routing import route

ZONE = ZoneInfo("Europe/Berlin")
UIDS = {"SOPClassUID": "1.2", "SOPInstanceUID": "1.3", "StudyInstanceUID": "1.4"}
UIDS["SeriesInstanceUID"] = "1.5"
ANNOUNCED = Announced("1.2", "1.3", "1.2", ExplicitVRLittleEndian, "AE")
TEXTS = [word for word in _KEYWORDS if word not in UIDS and word != "RequestAttributesSequence"]

odd = st.text(alphabet="AZaz09 .^-_+\\=\0\n:/~", max_size=20)
likely = st.sampled_from(
    ["19991231", "1999.12.31", "20260230", "235959.123", "+0100", "-9999", "STAT", "HIGH", "1.5",
     "007", " 12 ", "1_0", "99999999999", "Doe^Jane^^Dr", "A\\B", "\\", "19991231235959+0100"]
)  # fmt: skip


def written(values: dict[str, str], *, implicit: bool) -> bytes:
    """Write a data set by hand: a library would mend what is odd about it."""
    parts = []
    for keyword in sorted(values, key=lambda word: tag_for_keyword(word) or 0):
        tag = tag_for_keyword(keyword) or 0
        value = values[keyword].encode("ascii")
        value += b" " * (len(value) % 2)
        head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
        if implicit:
            parts.append(head + struct.pack("<L", len(value)) + value)
        else:
            vr = dictionary_VR(tag).encode()
            parts.append(head + vr + struct.pack("<H", len(value)) + value)
    return b"".join(parts)


def both_ways(data: bytes) -> tuple[PlainHeader, Header] | None:
    """Read a data set without and with pydicom; None where it is left to pydicom."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "data"
        path.write_bytes(data)
        with closing(FileSource(path, 0, data[:64])) as source:
            picked = Picked(source, _TAGS, little_endian=True)
    plain = plain_header(picked)
    if plain is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return plain, read_dataset(BytesIO(picked.elements), picked.implicit, True)


def said(header: Header) -> object:
    """Say all that the listener makes of a header, or why it refuses it."""
    try:
        return read_attributes(header, ANNOUNCED, ZONE), route("1.2", header)
    except SenderError as error:
        return type(error), str(error)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(st.sampled_from(TEXTS), odd | likely), st.booleans())
@example({"PatientName": "A=B", "SpecificCharacterSet": "ISO_IR 100"}, False)
@example({"SpecificCharacterSet": "\\ISO 2022 IR 87"}, True)
def test_both_ways_say_the_same(values: dict[str, str], implicit: bool) -> None:
    read = both_ways(written(UIDS | values, implicit=implicit))
    if read is not None:
        plain, whole = read
        assert said(plain) == said(whole)
        for keyword in TEXTS:
            assert [one for one in texts(plain, keyword) if one] == [
                one for one in texts(whole, keyword) if one
            ], keyword


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(UIDS)), odd)
def test_both_ways_refuse_the_same(keyword: str, value: str) -> None:
    read = both_ways(written(UIDS | {keyword: value}, implicit=False))
    assert (read is None) == ("\n" in value)
    if read is not None:
        plain, whole = read
        assert said(plain) == said(whole)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("SpecificCharacterSet", "ISO_IR 13"),  # a backslash may be a yen sign there
        ("SpecificCharacterSet", "\\ISO 2022 IR 87"),
        ("PatientName", "Yamada^Tarou=A=B"),
        ("PatientName", "\x1b$B;3ED"),
    ],
)
def test_what_may_mean_something_else_is_left_to_pydicom(keyword: str, value: str) -> None:
    assert both_ways(written(UIDS | {keyword: value}, implicit=False)) is None


def test_another_representation_than_the_dictionary_s_is_left_to_pydicom() -> None:
    data = written(UIDS | {"PatientID": "P1"}, implicit=False)
    assert both_ways(data) is not None
    assert both_ways(data.replace(b"\x10\0\x20\0LO", b"\x10\0\x20\0ST")) is None


def test_letters_beyond_ascii_are_left_to_pydicom(tmp_path: Path) -> None:
    data = written(UIDS | {"PatientName": "M@ller", "SpecificCharacterSet": "ISO_IR 100"},
                   implicit=True).replace(b"@", "ü".encode("latin-1"))  # fmt: skip
    assert both_ways(data) is None
    announced = Announced("1.2", "1.3", "1.2", ImplicitVRLittleEndian, "AE")
    path = tmp_path / "i.dcm"
    path.write_bytes(announced.part10_head + data)
    assert text(read_received_header(path, announced, data), "PatientName") == "Müller"


def test_a_plain_header_has_no_sequences() -> None:
    read = both_ways(written(UIDS, implicit=False))
    assert read is not None
    plain, _ = read
    assert items(plain, "RequestAttributesSequence") == []
    assert text(plain, "NoSuchKeyword") == ""
