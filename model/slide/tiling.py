"""How a slide is cut into tiles, as a bundle states it; no torch, and no slide is opened here.

Letters of shapes: R and C rows and columns of the grid of tiles.
"""

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

# Tiles are read in bands of this many rows, column by column: the frames of the file under a band
# are then decoded about once, whatever the width of the slide.
BAND_ROWS = 8


class SlideTiling(BaseModel):
    """What is done to a slide before the encoder sees it; part of a slide bundle.

    ``mpp_um`` is the size of a tile's pixel in micrometres: 0.5 is what is called 20x. Pixels are
    brought to (x - mean) / std with x in [0, 1]; encoders for colour standardise by themselves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mpp_um: float = Field(default=0.5, gt=0, le=16)
    tile_px: int = Field(default=224, ge=32, le=1024)
    min_tissue: float = Field(default=0.2, gt=0, le=1, description="of a tile's area")
    colour: Literal["rgb", "grey"] = "rgb"
    mean: float = 0.0
    std: float = Field(default=1.0, gt=0)

    @property
    def channels(self) -> int:
        """Channels of the encoder's input."""
        return 3 if self.colour == "rgb" else 1

    @property
    def tile_um(self) -> float:
        """Side of a tile on the glass, in micrometres."""
        return self.tile_px * self.mpp_um

    @property
    def picture_mpp_um(self) -> float:
        """Size of a pixel of the picture on which tissue is sought: a seventh of a tile."""
        return self.tile_um / 7


class TileGrid(NamedTuple):
    """The tiles of one slide: a grid from its top left corner, and which of them show tissue.

    Attributes:
        kept: bool (R, C); row 0 is the top.
    """

    kept: NDArray[np.bool_]

    @property
    def tiles(self) -> int:
        """How many tiles will be read."""
        return int(self.kept.sum())

    def positions(self) -> Iterator[tuple[int, int]]:
        """Give (row, column) of the kept tiles, band by band and column by column in each."""
        for top in range(0, self.kept.shape[0], BAND_ROWS):
            band = self.kept[top : top + BAND_ROWS]
            for column, row in zip(*np.nonzero(band.T), strict=True):
                yield top + int(row), int(column)


def lay_grid(
    tissue: NDArray[np.bool_], extent_um: tuple[float, float], tiling: SlideTiling
) -> TileGrid:
    """Keep the tiles of which enough is tissue.

    Args:
        tissue: (H, W), the mask of the whole slide at any resolution.
        extent_um: Height and width of what the mask shows, on the glass.
        tiling: Size of the tiles and the least share of tissue.
    """
    counts = [max(1, math.ceil(side / tiling.tile_um - 1e-6)) for side in extent_um]
    # Sums over any rectangle from four corners, so that a tile costs the same at every size.
    sums = cv2.integral(tissue.astype(np.uint8))
    edges = []
    for count, side_um, side_px in zip(counts, extent_um, tissue.shape, strict=True):
        at_um = np.minimum(np.arange(count + 1) * tiling.tile_um, side_um)
        at_px = np.rint(at_um / side_um * side_px).astype(int)
        edges.append(np.maximum(at_px, np.minimum(np.arange(count + 1), side_px)))
    corners = sums[np.ix_(*edges)].astype(np.float64)
    inside = corners[1:, 1:] - corners[:-1, 1:] - corners[1:, :-1] + corners[:-1, :-1]
    # A tile that hangs over the slide's edge is measured against its whole area.
    per_tile = np.prod(
        [tiling.tile_um / e * n for e, n in zip(extent_um, tissue.shape, strict=True)]
    )
    return TileGrid(inside >= tiling.min_tissue * max(per_tile, 1.0))


def standardise(tile: NDArray[np.uint8], tiling: SlideTiling) -> NDArray[np.float32]:
    """Turn RGB pixels (S, S, 3) into the encoder's input, float32 (channels, S, S)."""
    if tiling.colour == "grey":
        tile = cv2.cvtColor(tile, cv2.COLOR_RGB2GRAY)[..., None]  # pyright: ignore[reportAssignmentType]
    scaled = (tile.astype(np.float32) / np.float32(255) - np.float32(tiling.mean)) / np.float32(
        tiling.std
    )
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))
