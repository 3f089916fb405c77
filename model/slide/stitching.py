"""The heatmap of a whole slide: stitched on disk tile by tile, written as one pyramid.

Letters of shapes: R and C rows and columns of the grid of tiles, h and w cells of a tile, H = R * h
and W = C * w.
"""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray

from model.slide.tiling import BAND_ROWS

TIFF_TILE = 256
SMALLEST_LEVEL = 512


class RawMap(NamedTuple):
    """Float16 values (H, W) in a file, row after row; NaN where nothing was analysed.

    ``reduction`` is how many cells of the heatmap one value stands for, along each side.
    """

    path: Path
    shape: tuple[int, int]
    reduction: int = 1

    def read_rows(self, start: int, stop: int) -> NDArray[np.float16]:
        """Read rows, no more than there are."""
        rows, columns = self.shape
        start, stop = min(start, rows), min(stop, rows)
        values = np.fromfile(
            self.path, np.float16, (stop - start) * columns, offset=2 * start * columns
        )
        return values.reshape(stop - start, columns)


class HeatmapStitcher:
    """Takes maps of tiles in the order of ``TileGrid.positions``; holds one band in memory."""

    def __init__(self, path: Path, grid: tuple[int, int], cells: tuple[int, int]) -> None:
        self._grid, self._cells = grid, cells
        self.map = RawMap(path, (grid[0] * cells[0], grid[1] * cells[1]))
        self._file = path.open("wb")
        self._band = 0
        self._rows = self._empty_band()

    def add(self, row: int, column: int, heatmap: NDArray[np.floating]) -> None:
        """Put the map (h, w) of the tile at this place of the grid."""
        while row >= (self._band + 1) * BAND_ROWS:
            self._write_band()
        h, w = self._cells
        top = (row - self._band * BAND_ROWS) * h
        self._rows[top : top + h, column * w : (column + 1) * w] = heatmap

    def close(self) -> RawMap:
        """Write what is left and give the finished map."""
        while self._band * BAND_ROWS < self._grid[0]:
            self._write_band()
        self._file.close()
        return self.map

    def _write_band(self) -> None:
        self._file.write(self._rows.tobytes())
        self._band += 1
        self._rows = self._empty_band()

    def _empty_band(self) -> NDArray[np.float16]:
        rows = max(0, min(BAND_ROWS, self._grid[0] - self._band * BAND_ROWS))
        return np.full((rows * self._cells[0], self.map.shape[1]), np.nan, dtype=np.float16)


def reduce_map(raw: RawMap, path: Path) -> RawMap:
    """Halve both sides: each value is the greatest of its four.

    The mean would let a small hot place fade from the overview; so a coarse level never shows
    less than a fine one, and may show more.
    """
    rows, columns = raw.shape
    reduced = RawMap(path, (-(-rows // 2), -(-columns // 2)), raw.reduction * 2)
    with path.open("wb") as file:
        for top in range(0, rows, TIFF_TILE):
            band = raw.read_rows(top, top + TIFF_TILE)
            odd = ((0, band.shape[0] % 2), (0, columns % 2))
            band = np.pad(band, odd, constant_values=np.nan)
            over_rows = np.fmax(band[::2], band[1::2])  # fmax ignores NaN
            file.write(np.fmax(over_rows[:, ::2], over_rows[:, 1::2]).tobytes())
    return reduced


def build_levels(raw: RawMap) -> list[RawMap]:
    """Reduce a map until it fits a screen; the files lie beside it."""
    levels = [raw]
    while max(levels[-1].shape) > SMALLEST_LEVEL:
        levels.append(reduce_map(levels[-1], raw.path.with_suffix(f".{len(levels)}")))
    return levels


def write_pyramid(
    levels: list[RawMap], path: Path, *, cell_um: float, description: dict[str, object]
) -> None:
    """Write levels as a tiled pyramidal BigTIFF: float32 in [0, 1], NaN where nothing was read.

    The resolution tags give the size of a cell, so that a viewer can lay it over the slide, whose
    top left corner it shares. ``description`` is kept as JSON in ImageDescription.
    """
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for number, level in enumerate(levels):
            per_cm = 1e4 / (cell_um * level.reduction)
            tiff.write(
                _tiles(level),
                shape=level.shape,
                dtype=np.float32,
                tile=(TIFF_TILE, TIFF_TILE),
                compression="zlib",
                photometric="minisblack",
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                subifds=len(levels) - 1 if number == 0 else None,
                subfiletype=1 if number else 0,
                description=json.dumps(description) if number == 0 else None,
                metadata=None,
            )


def _tiles(level: RawMap) -> Iterator[NDArray[np.float32]]:
    rows, columns = level.shape
    edges = [*range(0, columns, TIFF_TILE), columns]
    for top in range(0, rows, TIFF_TILE):
        band = level.read_rows(top, top + TIFF_TILE).astype(np.float32)
        for left, right in pairwise(edges):
            tile = np.full((TIFF_TILE, TIFF_TILE), np.nan, dtype=np.float32)
            tile[: band.shape[0], : right - left] = band[:, left:right]
            yield tile
