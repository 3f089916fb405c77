"""Slides: tissue, tiles, one score over every cell, one heatmap; and a reason for what is none."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import tifffile
import torch
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from safetensors.torch import load_file

from common.errors import BundleError, ImageError, NotEligibleError, UnreadablePixelsError
from model.insight import alpha_for, smooth_max
from model.slide.dicom_writing import write_slide
from model.slide.generated import generate_slide
from model.slide.network import build_slide_network
from model.slide.pipeline import SlidePipeline, load_slide_pipeline
from model.slide.stitching import HeatmapStitcher, build_levels, write_pyramid
from model.slide.tiles import plan_tiles, read_tiles
from model.slide.tiling import SlideTiling, TileGrid, lay_grid, standardise
from model.slide.tissue import find_tissue
from model.slide.whole_slide import open_slide
from tests.slides import (
    ENCODER,
    GREY,
    draw_pink_square,
    write_pink_slide,
    write_random_slide_bundle,
)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> SlidePipeline:
    return load_slide_pipeline(write_random_slide_bundle(tmp_path_factory.mktemp("bundle")), "cpu")


@pytest.fixture(scope="module")
def pink(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_pink_slide(tmp_path_factory.mktemp("slides") / "pink")


def test_a_blank_slide_has_no_tissue_whatever_its_noise() -> None:
    rng = np.random.default_rng(0)
    blank = np.clip(244 + rng.normal(0, 3, (90, 90, 3)), 0, 255).astype(np.uint8)

    assert not find_tissue(blank).any()
    assert not find_tissue(np.full((40, 40, 3), 255, np.uint8)).any()


def test_a_slide_of_tissue_alone_is_not_cut_in_two() -> None:
    tissue = draw_pink_square((90, 90), 0, 0, 90)

    assert find_tissue(tissue).mean() > 0.98


def test_tissue_of_a_generated_slide_is_found_to_within_a_few_percent() -> None:
    drawn = generate_slide(3, tumour=True, size_px=(640, 640))

    found = find_tissue(drawn.pixels[::8, ::8])

    assert (found == drawn.tissue[::8, ::8]).mean() > 0.97
    assert drawn.tumour.any()
    assert not generate_slide(3, tumour=False, size_px=(640, 640)).tumour.any()


def test_a_tile_is_kept_when_enough_of_it_is_tissue() -> None:
    tiling = SlideTiling(tile_px=100, mpp_um=1.0, min_tissue=0.25)
    tissue = np.zeros((25, 35), dtype=bool)  # 10 micrometres a pixel: 2.5 x 3.5 tiles
    tissue[0:5, 0:5] = True  # a quarter of the first tile
    tissue[10:15, 10:14] = True  # a fifth of the middle one
    tissue[20:25, 30:35] = True  # all there is of the last, and a quarter of its area

    kept = lay_grid(tissue, (250.0, 350.0), tiling).kept

    assert kept.shape == (3, 4)
    assert np.argwhere(kept).tolist() == [[0, 0], [2, 3]]


def test_every_kept_tile_is_visited_once_and_band_after_band() -> None:
    kept = np.random.default_rng(1).random((21, 13)) < 0.4

    positions = list(TileGrid(kept).positions())

    assert sorted(positions) == [tuple(place) for place in np.argwhere(kept).tolist()]
    bands = [row // 8 for row, _ in positions]
    assert bands == sorted(bands)


def test_what_was_written_is_read_again_at_every_level(tmp_path: Path) -> None:
    pixels = draw_pink_square((300, 420), 60, 100, 200)
    files = write_slide(tmp_path / "slide", pixels, mpp_um=0.25, frame_px=64)

    with open_slide(files) as slide:
        assert [level.size_px for level in slide.levels] == [(300, 420), (75, 105)]
        assert slide.extent_um == pytest.approx((75.0, 105.0))
        block = slide.read_block(slide.base, 40, 380, (100, 100))
        expected = np.full((100, 100, 3), 255, np.uint8)
        expected[:, :40] = pixels[40:140, 380:]
        assert np.abs(block.astype(int) - expected).mean() < 4  # JPEG
        assert (block[:, 40:] == 255).all()
        assert slide.level_for(1.0).mpp_um == pytest.approx((1.0, 1.0))
        assert slide.level_for(0.9).mpp_um == pytest.approx((0.25, 0.25))


def test_a_slide_scanned_finer_gives_nearly_the_same_tiles(tmp_path: Path) -> None:
    drawn = generate_slide(5, tumour=False, size_px=(512, 512)).pixels
    twice = drawn.repeat(2, axis=0).repeat(2, axis=1)
    batches = []
    for name, pixels, mpp_um in (("half", drawn, 0.5), ("quarter", twice, 0.25)):
        files = write_slide(tmp_path / name, pixels, mpp_um=mpp_um, reductions=(1,))
        with open_slide(files) as slide:
            plan = plan_tiles(slide, GREY)
            batches.append(list(read_tiles(slide, plan, GREY, 100)))

    (half,), (quarter,) = batches
    assert half.positions == quarter.positions
    assert half.pixels.shape == (len(half.positions), 1, 64, 64)
    assert np.abs(half.pixels - quarter.pixels).mean() < 0.1


def test_colour_stays_colour_for_encoders_that_want_it() -> None:
    tile = np.zeros((32, 32, 3), np.uint8)
    tile[..., 0] = 255

    assert standardise(tile, SlideTiling(tile_px=32)).tolist() == [
        [[1.0] * 32] * 32,
        *[[[0.0] * 32] * 32] * 2,
    ]


def test_the_score_pools_every_cell_of_the_slide_as_if_it_were_in_memory(
    pipeline: SlidePipeline, pink: list[Path], tmp_path: Path
) -> None:
    with open_slide(pink) as slide:
        reading = pipeline.read(slide, tmp_path / "map.raw", batch=3)
        tiles = next(read_tiles(slide, reading.plan, GREY, 100))
    network = build_slide_network(ENCODER)
    network.load_state_dict(load_file(pipeline.bundle.weights))
    with torch.inference_mode():
        heatmaps = network.eval()(torch.from_numpy(tiles.pixels)).heatmap
    cells = heatmaps.double().flatten()

    expected = float(smooth_max(cells, alpha_for(len(cells))))

    assert len(tiles.positions) == reading.plan.grid.tiles == 16
    assert reading.insight_probability == pytest.approx(expected, abs=1e-6)
    assert reading.score == pytest.approx(np.log(expected / (1 - expected)), abs=1e-5)
    stitched = reading.heatmap.read_rows(0, 10_000)
    h, w = heatmaps.shape[2:]
    for (row, column), heatmap in zip(tiles.positions, heatmaps[:, 0], strict=True):
        there = stitched[row * h : (row + 1) * h, column * w : (column + 1) * w]
        np.testing.assert_allclose(there, heatmap, atol=1e-3)  # float16
    assert np.isfinite(stitched).sum() == len(cells)


def test_the_map_of_a_tile_does_not_depend_on_its_neighbours(
    pipeline: SlidePipeline, tmp_path: Path
) -> None:
    pixels = draw_pink_square((256, 256), 0, 0, 256)
    changed = pixels.copy()
    changed[:, 64:] = changed[::-1, 64:] // 2 + 60
    maps = []
    for name, drawn in (("one", pixels), ("other", changed)):
        files = write_slide(tmp_path / name, drawn, mpp_um=0.5, frame_px=64, reductions=(1,))
        with open_slide(files) as slide:
            reading = pipeline.read(slide, tmp_path / f"{name}.raw", batch=5)
        maps.append(reading.heatmap.read_rows(0, reading.heatmap.shape[0]))

    cells = maps[0].shape[1] // 4
    np.testing.assert_allclose(maps[0][:, :cells], maps[1][:, :cells], atol=2e-3)
    assert np.abs(maps[0][:, cells:] - maps[1][:, cells:]).max() > 0.01


def test_the_pyramid_holds_the_map_and_coarser_levels_hide_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    grid, cells = (19, 90), (14, 14)
    stitcher = HeatmapStitcher(tmp_path / "map.raw", grid, cells)
    tiles = {(3, 5): rng.random(cells), (17, 89): rng.random(cells), (18, 0): rng.random(cells)}
    for (row, column), heatmap in tiles.items():
        stitcher.add(row, column, heatmap)

    levels = build_levels(stitcher.close())
    write_pyramid(levels, tmp_path / "map.tiff", cell_um=8.0, description={"score": 0.5})

    with tifffile.TiffFile(tmp_path / "map.tiff") as tiff:
        pages = tiff.series[0].levels
        arrays = [page.asarray() for page in pages]
        first = tiff.pages[0]
        assert isinstance(first, tifffile.TiffPage)
        assert first.is_tiled
        assert json.loads(first.description) == {"score": 0.5}
        assert first.get_resolution("MICROMETER") == pytest.approx((1 / 8, 1 / 8))
    assert [array.shape for array in arrays] == [(266, 1260), (133, 630), (67, 315)]
    assert np.isfinite(arrays[0]).sum() == 3 * 14 * 14
    for (row, column), heatmap in tiles.items():
        there = arrays[0][row * 14 : row * 14 + 14, column * 14 : column * 14 + 14]
        np.testing.assert_allclose(there, heatmap, atol=1e-3)
    assert {float(np.nanmax(array)) for array in arrays} == {float(np.nanmax(arrays[0]))}


def test_a_uni_shaped_encoder_sees_the_tiles_in_colour(pink: list[Path], tmp_path: Path) -> None:
    twin = {"kind": "uni", "width": 32, "depth": 1, "heads": 2, "trained_px": 224}
    colour = SlideTiling(tile_px=64)
    bundle = write_random_slide_bundle(tmp_path / "bundle", encoder=twin, tiling=colour)

    with open_slide(pink) as slide:
        reading = load_slide_pipeline(bundle, "cpu").read(slide, tmp_path / "map.raw")
        tiles = next(read_tiles(slide, reading.plan, colour, 4))

    assert tiles.pixels.shape == (4, 3, 64, 64)
    assert (tiles.pixels[:, 0] > tiles.pixels[:, 1]).mean() > 0.9  # pink: more red than green
    assert reading.heatmap.shape == (8 * 4, 10 * 4)  # a cell for each patch of 16 pixels
    assert reading.cell_um == pytest.approx(8.0)


def test_a_bundle_of_another_pipeline_is_no_slide_bundle(pipeline: SlidePipeline) -> None:
    other = pipeline.bundle.model_copy(update={"pipeline": "chest_ct"})

    with pytest.raises(BundleError, match="no slide bundle"):
        load_slide_pipeline(other, "cpu")


Change = Callable[[Dataset], None]


def _without_spacing(dataset: Dataset) -> None:
    del dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing


def _label_alone(dataset: Dataset) -> None:
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]


def _frames_missing(dataset: Dataset) -> None:
    dataset.NumberOfFrames = 3


def _two_optical_paths(dataset: Dataset) -> None:
    second = copy.deepcopy(dataset.OpticalPathSequence[0])
    second.OpticalPathIdentifier = "1"
    dataset.OpticalPathSequence.append(second)
    count = int(dataset.NumberOfFrames)
    frames = list(generate_frames(dataset.PixelData, number_of_frames=count))
    dataset.PixelData = encapsulate(frames + frames)
    dataset.NumberOfOpticalPaths, dataset.NumberOfFrames = 2, 2 * count


def _one_frame_no_jpeg(dataset: Dataset) -> None:
    frames = list(generate_frames(dataset.PixelData, number_of_frames=int(dataset.NumberOfFrames)))
    frames[len(frames) // 2] = bytes(len(frames[0]))
    dataset.PixelData = encapsulate(frames)


def _one_frame_cut(dataset: Dataset) -> None:
    frames = list(generate_frames(dataset.PixelData, number_of_frames=int(dataset.NumberOfFrames)))
    middle = frames[len(frames) // 2]
    frames[len(frames) // 2] = middle[: len(middle) // 2]
    dataset.PixelData = encapsulate(frames)


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        (_without_spacing, NotEligibleError, "no pixel spacing: the magnification is unknown"),
        (_label_alone, NotEligibleError, "no level of a whole-slide image"),
        (_two_optical_paths, NotEligibleError, "2 optical paths"),
        (_frames_missing, UnreadablePixelsError, "cannot be opened: .*number of frames 3"),
        (_one_frame_no_jpeg, UnreadablePixelsError, "a tile near row .* cannot be read"),
        (_one_frame_cut, UnreadablePixelsError, "a tile near row .* cannot be read.*[Tt]runcated"),
    ],
)
def test_a_slide_that_cannot_be_used_says_why(
    change: Change, error: type[ImageError], reason: str, pink: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "slide").mkdir()
    files = [Path(shutil.copy(path, tmp_path / "slide")) for path in pink]
    for path in files:
        dataset = pydicom.dcmread(path)
        change(dataset)
        dataset.save_as(path)

    with pytest.raises(error, match=reason):
        _read_all(files)


@pytest.mark.parametrize(
    ("mpp_um", "reductions", "reason"),
    [
        (2.0, (1, 4), "not sharp enough: its finest level has 2 micrometres"),
        (0.03, (1,), "level missing: the coarsest that is fine enough"),
    ],
)
def test_a_slide_without_the_level_that_is_needed_says_so(
    mpp_um: float, reductions: tuple[int, ...], reason: str, tmp_path: Path
) -> None:
    pixels = draw_pink_square((200, 200), 20, 20, 150)
    files = write_slide(tmp_path / "slide", pixels, mpp_um=mpp_um, reductions=reductions)

    with open_slide(files) as slide, pytest.raises(NotEligibleError, match=reason):
        plan_tiles(slide, GREY)


def test_a_slide_without_tissue_says_so(tmp_path: Path) -> None:
    files = write_slide(tmp_path / "slide", np.full((300, 300, 3), 244, np.uint8), mpp_um=0.5)

    with open_slide(files) as slide, pytest.raises(NotEligibleError, match="no tissue found"):
        plan_tiles(slide, GREY)


def test_a_cut_file_is_unreadable_and_not_a_crash(pink: list[Path], tmp_path: Path) -> None:
    content = pink[0].read_bytes()
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(content[: len(content) * 6 // 10])

    with pytest.raises(UnreadablePixelsError):
        _read_all([cut])


def _read_all(files: list[Path]) -> None:
    with open_slide(files) as slide:
        plan = plan_tiles(slide, GREY)
        for _ in read_tiles(slide, plan, GREY, 8):
            pass
