"""Values of a header as text, whatever their number and kind."""

import pytest
from pydicom.dataset import Dataset

from common.pixels.header import text, texts


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
