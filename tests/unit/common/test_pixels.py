"""What the reader sees is what is read: one exposure in every encoding."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import UID, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless

from common.errors import UnreadablePixelsError
from common.pixels.reading import read_pixels
from tests.radiographs import LOSSLESS, make_exposure, make_radiograph, write_radiograph

EXPOSURE = make_exposure(12)
SEEN = (EXPOSURE / 4095).astype(np.float32)


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., NDArray[np.float32]]:
    """Write a data set and read its pixels."""

    def write_and_read(dataset: Dataset, *syntax: UID, **encoding: int) -> NDArray[np.float32]:
        return read_pixels(write_radiograph(dataset, tmp_path / "i.dcm", *syntax, **encoding))

    return write_and_read


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize(("bits", "signed"), [(8, False), (12, False), (16, False), (12, True)])
def test_every_lossless_syntax_gives_the_same_pixels(
    read: Callable[..., NDArray[np.float32]], syntax: UID, bits: int, signed: bool
) -> None:
    exposure = make_exposure(bits)
    offset = 1 << (bits - 1) if signed else 0
    stored = exposure.astype(np.int32) - offset
    image = read(make_radiograph(stored, bits, signed=signed), syntax)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, exposure / ((1 << bits) - 1), atol=1e-6)


@pytest.mark.parametrize(
    ("syntax", "bits", "near", "bound"),
    [
        (JPEGBaseline8Bit, 8, 0, 0.02),
        (JPEGExtended12Bit, 12, 0, 0.02),
        (JPEGLSNearLossless, 12, 3, 4 / 4095),
    ],
)
def test_a_lossy_syntax_stays_close(
    read: Callable[..., NDArray[np.float32]], syntax: UID, bits: int, near: int, bound: float
) -> None:
    exposure = make_exposure(bits)
    tags = {"WindowCenter": 2 ** (bits - 1), "WindowWidth": 2**bits}
    image = read(make_radiograph(exposure, bits, **tags), syntax, near=near)
    assert 0 < np.abs(image - exposure / ((1 << bits) - 1)).max() < bound


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME2", None, False),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME1", None, True),
        ("MONOCHROME1", "INVERSE", True),  # as DX has it: one inversion, not two
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME1", "IDENTITY", False),
    ],
)
def test_polarity_is_turned_at_most_once(
    read: Callable[..., NDArray[np.float32]], photometric: str, shape: str | None, inverted: bool
) -> None:
    stored = 4095 - EXPOSURE if inverted else EXPOSURE
    dataset = make_radiograph(
        stored, 12, PhotometricInterpretation=photometric, PresentationLUTShape=shape
    )
    np.testing.assert_allclose(read(dataset), SEEN, atol=1e-6)


def test_bits_above_the_stored_ones_are_not_pixels(
    read: Callable[..., NDArray[np.float32]],
) -> None:
    overlay = (np.indices(EXPOSURE.shape).sum(axis=0) % 2).astype(np.uint16) << 15
    dataset = make_radiograph(EXPOSURE | overlay, 16, BitsStored=12, HighBit=11)
    np.testing.assert_allclose(read(dataset), SEEN, atol=1e-6)


def test_pixels_may_lie_in_the_upper_bits(read: Callable[..., NDArray[np.float32]]) -> None:
    dataset = make_radiograph(EXPOSURE << 4 | 0b1011, 16, BitsStored=12, HighBit=15)
    np.testing.assert_allclose(read(dataset), SEEN, atol=1e-6)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"WindowCenter": 2048, "WindowWidth": 4096}, SEEN),
        ({"WindowCenter": ["2048", "9"], "WindowWidth": ["4096", "9"]}, SEEN),
        (
            {
                "RescaleSlope": 2,
                "RescaleIntercept": -100,
                "WindowCenter": 3996,
                "WindowWidth": 8191,
            },
            SEEN,
        ),
        (
            {"WindowCenter": 2048, "WindowWidth": 1024},
            np.clip((EXPOSURE - 2047.5) / 1023 + 0.5, 0, 1),
        ),
        (
            {"WindowCenter": 2048, "WindowWidth": 1024, "VOILUTFunction": "LINEAR_EXACT"},
            np.clip((EXPOSURE - 2048.0) / 1024 + 0.5, 0, 1),
        ),
        (
            {"WindowCenter": 2048, "WindowWidth": 1024, "VOILUTFunction": "SIGMOID"},
            1 / (1 + np.exp(-4 * (EXPOSURE - 2048.0) / 1024)),
        ),
        ({"WindowCenter": 2048, "WindowWidth": 1}, (EXPOSURE >= 2048).astype(np.float64)),
        ({"WindowCenter": 2048, "WindowWidth": 0}, SEEN),  # no window by its definition
        ({"WindowCenter": -9000, "WindowWidth": 10}, SEEN),  # all white: nobody's window
        ({"RescaleSlope": 0}, SEEN),
    ],
)
def test_the_first_window_is_applied(
    read: Callable[..., NDArray[np.float32]], tags: dict[str, Any], expected: NDArray[np.float64]
) -> None:
    tolerance = 1e-3 if "RescaleSlope" in tags else 1e-6
    np.testing.assert_allclose(
        read(make_radiograph(EXPOSURE, 12, **tags)), expected, atol=tolerance
    )


def make_table(first: int, entries: NDArray[np.uint16], bits: int) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries) % 65536, first, bits])
    item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    return item


def test_a_voi_lut_is_applied_before_any_window(
    read: Callable[..., NDArray[np.float32]],
) -> None:
    squares = (np.arange(3000.0) / 2999) ** 2
    table = make_table(500, np.rint(squares * 1023).astype(np.uint16), bits=10)
    dataset = make_radiograph(
        EXPOSURE, 12, VOILUTSequence=[table], WindowCenter=100, WindowWidth=50
    )
    expected = squares[np.clip(EXPOSURE.astype(int) - 500, 0, 2999)]
    np.testing.assert_allclose(read(dataset), expected, atol=1e-3)


def test_a_modality_lut_is_applied(read: Callable[..., NDArray[np.float32]]) -> None:
    table = make_table(0, (4095 - np.arange(4096)).astype(np.uint16), bits=12)
    dataset = make_radiograph(4095 - EXPOSURE, 12, ModalityLUTSequence=[table])
    np.testing.assert_allclose(read(dataset), SEEN, atol=1e-6)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("tags", "background"),
    [
        ({"PixelPaddingValue": 65535}, 65535),
        ({"PixelPaddingValue": 60000, "PixelPaddingRangeLimit": 65535}, 62000),
        ({"PixelPaddingValue": 65535, "PixelPaddingRangeLimit": 60000}, 62000),
    ],
)
def test_padding_is_black_and_spoils_no_range(
    read: Callable[..., NDArray[np.float32]],
    photometric: str,
    tags: dict[str, Any],
    background: int,
) -> None:
    stored = EXPOSURE.copy() if photometric == "MONOCHROME2" else 4095 - EXPOSURE
    stored[:, :20] = background
    inside = EXPOSURE[:, 20:].astype(np.float64)
    image = read(make_radiograph(stored, 16, PhotometricInterpretation=photometric, **tags))
    assert (image[:, :20] == 0).all()
    expected = (inside - inside.min()) / np.ptp(inside)
    np.testing.assert_allclose(image[:, 20:], expected, atol=1e-6)


def test_a_signed_padding_value_written_as_unsigned_is_understood(
    read: Callable[..., NDArray[np.float32]],
) -> None:
    stored = EXPOSURE.astype(np.int16)
    stored[:, :20] = -2000
    dataset = make_radiograph(stored, 16, signed=True)
    dataset.add_new("PixelPaddingValue", "US", 65536 - 2000)
    assert (read(dataset)[:, :20] == 0).all()


def test_padding_alone_is_no_image(read: Callable[..., NDArray[np.float32]]) -> None:
    with pytest.raises(UnreadablePixelsError, match="padding"):
        read(make_radiograph(np.zeros((8, 8)), 12, PixelPaddingValue=0))


def test_an_exposure_of_one_grey_value_is_black(
    read: Callable[..., NDArray[np.float32]],
) -> None:
    assert (read(make_radiograph(np.full((8, 8), 77), 12)) == 0).all()
