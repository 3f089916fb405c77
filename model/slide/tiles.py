"""Stream the tissue of a slide as batches of tiles; one batch is in memory at a time.

Letters of shapes: B tiles, S pixels along a side.
"""

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from common.errors import NotEligibleError
from model.slide.tiling import SlideTiling, TileGrid, lay_grid, standardise
from model.slide.tissue import find_tissue
from model.slide.whole_slide import SlideLevel, WholeSlide


class TilePlan(NamedTuple):
    """What will be read of a slide.

    Attributes:
        picture: uint8 RGB (H, W, 3), the whole slide, small.
        tissue: bool (H, W), what counts as tissue on it.
        grid: which tiles will be read.
        level: from which level.
    """

    picture: NDArray[np.uint8]
    tissue: NDArray[np.bool_]
    grid: TileGrid
    level: SlideLevel


class TileBatch(NamedTuple):
    """Some tiles in the order of the grid.

    Attributes:
        positions: row and column of each in the grid.
        pixels: float32 (B, channels, S, S), the encoder's input.
    """

    positions: list[tuple[int, int]]
    pixels: NDArray[np.float32]


def plan_tiles(slide: WholeSlide, tiling: SlideTiling) -> TilePlan:
    """Find the tissue, lay the grid and choose the level.

    Raises:
        NotEligibleError: no tissue, or no level that is fine enough.
        UnreadablePixelsError: a tile of the file is broken.
    """
    level = slide.level_for(tiling.mpp_um)
    picture = slide.read_picture(tiling.picture_mpp_um)
    tissue = find_tissue(picture)
    grid = lay_grid(tissue, slide.extent_um, tiling)
    if grid.tiles == 0:
        raise NotEligibleError("no tissue found")
    return TilePlan(picture, tissue, grid, level)


def read_tiles(
    slide: WholeSlide, plan: TilePlan, tiling: SlideTiling, batch: int
) -> Iterator[TileBatch]:
    """Read the tiles of a plan in its order.

    Raises:
        UnreadablePixelsError: a tile of the file is broken.
    """
    tall, wide = (tiling.tile_um / side for side in plan.level.mpp_um)  # pixels of the level
    size = (max(1, round(tall)), max(1, round(wide)))
    positions: list[tuple[int, int]] = []
    pixels: list[NDArray[np.float32]] = []
    for row, column in plan.grid.positions():
        block = slide.read_block(plan.level, round(row * tall), round(column * wide), size)
        positions.append((row, column))
        pixels.append(standardise(_to_size(block, tiling.tile_px), tiling))
        if len(pixels) == batch:
            yield TileBatch(positions, np.stack(pixels))
            positions, pixels = [], []
    if pixels:
        yield TileBatch(positions, np.stack(pixels))


def _to_size(block: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    if block.shape[:2] == (size_px, size_px):
        return block
    shrinks = min(block.shape[:2]) >= size_px
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(block, (size_px, size_px), interpolation=how).astype(np.uint8, copy=False)
