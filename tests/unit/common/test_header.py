"""Values of a header as text, whatever their number and kind."""

import struct
from io import BytesIO

import pytest
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import Tag

from common.pixels.header import items, numbers, text, texts


@pytest.mark.parametrize(
    ("keyword", "value", "expected"),
    [
        ("PatientName", "PHANTOM^Ada^^Dr", ("PHANTOM^Ada^^Dr",)),
        ("PatientName", "Yamada^Tarou=山田^太郎", ("Yamada^Tarou=山田^太郎",)),
        ("PatientID", "P 1 ", ("P 1",)),
        ("ImageType", ["ORIGINAL", "PRIMARY"], ("ORIGINAL", "PRIMARY")),
        ("WindowCenter", [40, 50], ("40.0", "50.0")),
        ("Rows", 512, ("512",)),
        ("PatientID", None, ()),
    ],
)
def test_a_value_is_read_whole(keyword: str, value: object, expected: tuple[str, ...]) -> None:
    dataset = Dataset()
    setattr(dataset, keyword, value)
    assert texts(dataset, keyword) == expected
    assert text(dataset, keyword) == (expected[0] if expected else "")


def test_an_absent_value_is_no_text() -> None:
    assert text(Dataset(), "PatientName", "unknown") == "unknown"


@pytest.mark.parametrize("keyword", ["PatientName", "Rows", "PixelData"])
def test_a_value_that_is_said_to_be_a_sequence_and_is_none_is_broken(keyword: str) -> None:
    tag = Tag(keyword)
    element = struct.pack("<HH2s2xL", tag.group, tag.element, b"SQ", 4) + b"2026"
    header = read_dataset(BytesIO(element), is_implicit_VR=False, is_little_endian=True)
    assert tag in header
    assert texts(header, keyword) == ()
    assert numbers(header, keyword) == ()
    assert items(header, keyword) == []
