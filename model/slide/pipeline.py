"""From a slide bundle and an open slide to one score and one heatmap, for research only."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from common.errors import BundleError, PredictionError
from model.bundles import Bundle
from model.execution import choose_device
from model.insight import StreamedSmoothMax, alpha_for
from model.slide.network import SlideNetwork, build_slide_network
from model.slide.stitching import HeatmapStitcher, RawMap
from model.slide.tiles import TileBatch, TilePlan, plan_tiles, read_tiles
from model.slide.tiling import SlideTiling
from model.slide.whole_slide import WholeSlide

# A probability of exactly 0 or 1 would make a score without end.
PROBABILITY_EPS = 1e-6
BATCH = 32


class SlideReading(NamedTuple):
    """What the network says of one slide.

    Attributes:
        score: raw logit of ``insight_probability``.
        insight_probability: pooled over every cell of every tile, in [0, 1], not calibrated.
        heatmap: on disk, on an absolute scale.
        plan: what was read.
        cell_um: side of a cell of the heatmap, in micrometres.
    """

    score: float
    insight_probability: float
    heatmap: RawMap
    plan: TilePlan
    cell_um: float


class SlidePipeline:
    """A slide bundle whose network stands ready on a device."""

    def __init__(
        self, bundle: Bundle, tiling: SlideTiling, network: SlideNetwork, device: torch.device
    ) -> None:
        self.bundle, self.tiling, self.device = bundle, tiling, device
        self._network = network.to(device).eval()

    def read(
        self,
        slide: WholeSlide,
        map_file: Path,
        *,
        batch: int = BATCH,
        progress: Callable[[int, int], None] | None = None,
    ) -> SlideReading:
        """Map every tile with tissue and pool all their cells, in one pass.

        Memory holds the small picture, one batch and one band of the heatmap. The cells are
        counted on the mask before the first tile is read, so the sharpness of the pooling is known.

        Args:
            slide: Open.
            map_file: Where the heatmap is put together: two bytes for each cell of the slide.
            batch: Tiles per forward pass.
            progress: Told after each batch how many tiles of how many are done.

        Raises:
            NotEligibleError: no tissue, or no level that is fine enough.
            UnreadablePixelsError: a tile of the file is broken.
            PredictionError: the network gave no finite answer.
        """
        plan = plan_tiles(slide, self.tiling)
        rows, columns = plan.grid.kept.shape
        pooling: StreamedSmoothMax | None = None
        stitcher: HeatmapStitcher | None = None
        cells, done = (1, 1), 0
        for tiles in read_tiles(slide, plan, self.tiling, batch):
            heatmaps = self._map(tiles)  # (B, 1, h, w)
            if pooling is None or stitcher is None:
                cells = (heatmaps.shape[2], heatmaps.shape[3])
                pooling = StreamedSmoothMax(alpha_for(plan.grid.tiles * math.prod(cells)))
                stitcher = HeatmapStitcher(map_file, (rows, columns), cells)
            pooling.add(heatmaps)
            for (row, column), heatmap in zip(
                tiles.positions, heatmaps[:, 0].cpu().numpy(), strict=True
            ):
                stitcher.add(row, column, heatmap)
            done += len(tiles.positions)
            if progress is not None:
                progress(done, plan.grid.tiles)
        if pooling is None or stitcher is None:
            raise ValueError("a plan without tiles")
        probability = float(pooling.probability()[0])
        bounded = min(max(probability, PROBABILITY_EPS), 1 - PROBABILITY_EPS)
        score = math.log(bounded / (1 - bounded))
        cell_um = self.tiling.tile_um / cells[0]
        return SlideReading(score, probability, stitcher.close(), plan, cell_um)

    def _map(self, tiles: TileBatch) -> torch.Tensor:
        with torch.inference_mode():
            pixels = torch.from_numpy(tiles.pixels).to(self.device)
            heatmaps = self._network(pixels).heatmap.float()
        if not bool(torch.isfinite(heatmaps).all()):
            row, column = tiles.positions[0]
            raise PredictionError(
                f"the network gave no finite answer from tile row {row}, column {column} on"
            )
        return heatmaps


def load_slide_pipeline(bundle: Bundle, device: str = "auto") -> SlidePipeline:
    """Load a slide bundle's network; ``device`` as for ``model.pipelines.load_pipeline``.

    Raises:
        BundleError: no slide bundle, or the weights do not fit the encoder that it names.
        ConfigurationError: there is no such device.
    """
    if bundle.pipeline != "slide" or bundle.slide_tiling is None:
        raise BundleError(
            f"{bundle.folder}: no slide bundle with an INSIGHT head; `firstread train slide` makes"
            " one from any encoder"
        )
    chosen = choose_device(device)
    try:
        network = build_slide_network(bundle.encoder)
        weights = load_file(bundle.weights)
        network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    except (ValueError, RuntimeError, SafetensorError) as error:
        raise BundleError(f"{bundle.folder}: the weights cannot be loaded: {error}") from error
    return SlidePipeline(bundle, bundle.slide_tiling, network, chosen)
