"""Whole-slide images that others made are read, or refused with one reason."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.errors import NotEligibleError
from model.slide.dicom_writing import write_slide
from model.slide.pipeline import load_slide_pipeline
from model.slide.tiles import plan_tiles
from model.slide.tiling import SlideTiling
from model.slide.tissue import find_tissue
from model.slide.whole_slide import open_slide
from tests.slides import GREY, write_random_slide_bundle

pytestmark = pytest.mark.data

TINY = SlideTiling(tile_px=32)


@pytest.mark.parametrize("name", ["sm_image_control", "sm_image_numbers", "sm_image_dots"])
def test_slides_of_another_writer_open_with_their_own_spacing(name: str, test_data: Path) -> None:
    with open_slide([test_data / "wsi" / "dicom_sm" / f"{name}.dcm"]) as slide:
        assert slide.base.size_px == (50, 50)
        assert slide.base.mpp_um == pytest.approx((0.499, 0.499))
        block = slide.read_block(slide.base, 0, 0, (50, 50))
        assert block.std() > 0


def test_jpeg_ls_with_and_without_offset_table_gives_the_same_pixels(test_data: Path) -> None:
    blocks = []
    for name in ("sm_image", "sm_image_jpegls", "sm_image_jpegls_nobot"):
        with open_slide([test_data / "wsi" / "dicom_sm" / f"{name}.dcm"]) as slide:
            blocks.append(slide.read_block(slide.base, 0, 0, (50, 50)))

    assert all(np.array_equal(blocks[0], block) for block in blocks)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("sm_annotations", "no level of a whole-slide image"),
        ("sm_image_grayscale", "not an 8-bit colour image"),
        ("sm_image_grayscale_reversed", "not an 8-bit colour image"),
        ("sm_image", "no tissue found"),
    ],
)
def test_what_is_no_stained_slide_is_refused_with_one_reason(
    name: str, reason: str, test_data: Path
) -> None:
    files = [test_data / "wsi" / "dicom_sm" / f"{name}.dcm"]

    with pytest.raises(NotEligibleError, match=reason), open_slide(files) as slide:
        plan_tiles(slide, TINY)


def test_stained_tiles_are_mostly_tissue_and_make_a_slide(test_data: Path, tmp_path: Path) -> None:
    folder = test_data / "wsi" / "camelyon16_tiles_unlabelled"
    tiles = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.png"))]
    side = min(min(tile.shape[:2]) for tile in tiles)
    tiles = [tile[:side, :side] for tile in tiles]
    rows = [np.hstack(tiles[row * 5 : row * 5 + 5]) for row in range(3)]
    pixels = np.pad(np.vstack(rows), ((200, 200), (200, 200), (0, 0)), constant_values=243)
    files = write_slide(tmp_path / "slide", pixels, mpp_um=0.5)
    bundle = write_random_slide_bundle(tmp_path / "bundle")

    with open_slide(files) as slide:
        reading = load_slide_pipeline(bundle, "cpu").read(slide, tmp_path / "map.raw")

    assert np.mean([find_tissue(tile[::16, ::16]).mean() for tile in tiles]) > 0.6
    assert reading.plan.level.mpp_um == pytest.approx((0.5, 0.5))
    most = 1.2 * 15 * (side / GREY.tile_px + 1) ** 2
    assert 0.5 * 15 * (side / GREY.tile_px) ** 2 < reading.plan.grid.tiles < most
