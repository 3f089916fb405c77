"""PNG, JPEG and the rendition that the page shows."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from common.errors import OversizedImageError, StorageUnavailableError, UnreadablePixelsError
from common.pixels.image_files import read_image_file
from common.pixels.rendition import read_rendition, write_rendition
from tests.radiographs import make_exposure

GREY8 = make_exposure(8).astype(np.uint8)
GREY16 = make_exposure(16)


def save(path: Path, image: Image.Image) -> Path:
    image.save(path)
    return path


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "LA"])
def test_an_eight_bit_grey_png_reads_alike_in_every_mode(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(GREY8)
    if mode == "P":
        image = grey.copy()
        image.putpalette([value for level in range(256) for value in (level,) * 3])
    else:
        image = grey.convert(mode)
    read = read_image_file(save(tmp_path / "i.png", image))
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, GREY8 / 255, atol=1e-6)


def test_a_sixteen_bit_png_keeps_all_its_bits(tmp_path: Path) -> None:
    path = save(tmp_path / "i.png", Image.fromarray(GREY16))
    np.testing.assert_allclose(read_image_file(path), GREY16 / 65535, atol=1e-6)


def test_transparency_lies_over_black(tmp_path: Path) -> None:
    image = Image.fromarray(GREY8).convert("LA")
    image.putalpha(0)
    assert (read_image_file(save(tmp_path / "i.png", image)) == 0).all()


def test_a_jpeg_reads_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn a quarter clockwise to see it upright
    Image.fromarray(GREY8).save(tmp_path / "i.jpg", quality=100, exif=exif)
    read = read_image_file(tmp_path / "i.jpg")
    np.testing.assert_allclose(read, np.rot90(GREY8, -1) / 255, atol=0.03)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.98])
def test_a_cut_file_is_an_error(tmp_path: Path, suffix: str, share: float) -> None:
    path = save(tmp_path / f"i.{suffix}", Image.fromarray(GREY8))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UnreadablePixelsError):
        read_image_file(path)


def test_a_png_larger_than_allowed_is_not_decoded(tmp_path: Path) -> None:
    path = save(tmp_path / "i.png", Image.new("1", (40_000, 40_000)))
    with pytest.raises(OversizedImageError):
        read_image_file(path)


def test_other_formats_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "i.png"
    Image.fromarray(GREY8).save(path, format="BMP")
    with pytest.raises(UnreadablePixelsError, match="neither PNG nor JPEG"):
        read_image_file(path)


def test_a_rendition_keeps_grey_values_and_shape(tmp_path: Path) -> None:
    image = (GREY16 / 65535).astype(np.float32)
    write_rendition(image, tmp_path / "r.png")
    np.testing.assert_array_equal(read_rendition(tmp_path / "r.png"), GREY16)
    write_rendition(image, tmp_path / "r.png", max_side_px=75)  # over the old one
    small = read_rendition(tmp_path / "r.png")
    expected = cv2.resize(image, (60, 75), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(small / 65535, expected, atol=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == ["r.png"]


def test_a_rendition_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailableError):
        write_rendition(np.zeros((4, 4), np.float32), tmp_path / "nowhere" / "r.png")


def test_another_png_is_no_rendition(tmp_path: Path) -> None:
    with pytest.raises(UnreadablePixelsError):
        read_rendition(save(tmp_path / "i.png", Image.fromarray(GREY8)))
