"""The network of ``chest_ct``: one encoder for all slices, INSIGHT on the series as one bag.

Letters of shapes: N slices, S pixels along a side, C width of the encoder's feature map, h and w
its rows and columns.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.encoders.building import build_encoder
from model.encoders.encoder import Encoder
from model.insight import InsightHead, InsightOutput, alpha_for, smooth_max
from model.network import PROBABILITY_EPS


class SliceLogits(NamedTuple):
    """What INSIGHT's two branches say of some slices, float (N, 1, h, w) each."""

    detection: Tensor
    context: Tensor


class SeriesOutput(NamedTuple):
    """What the network says of a series.

    Shapes:
        score: float (), the log odds of INSIGHT's probability; raw, not calibrated
        insight: over all slices as one bag
        slice_probability: float (N,), of each slice alone
    """

    score: Tensor
    insight: InsightOutput
    slice_probability: Tensor


class SeriesNetwork(nn.Module):
    """Look at each slice alone, then pool over every cell of every slice together.

    ``look`` takes as many slices as fit, ``judge`` the logits of all of them: a map of the
    detector is a thousandth of the features that it is made from, so the length of a scan hardly
    counts. The sharpness of the pooling follows the number of cells: at a fixed one, a single hot
    cell would vanish in a long scan.

    Source: arXiv:2412.02012; each slice is an element of the bag, context never crosses slices.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.insight = InsightHead(encoder.spatial_width, bag=True)

    def look(self, images: Tensor) -> SliceLogits:
        """Encode prepared slices, float (N, 1, S, S), and give the logits of their cells."""
        return SliceLogits(*self.insight.logits(self.encoder(images).spatial))

    def judge(self, logits: SliceLogits) -> SeriesOutput:
        """Pool the logits of a whole series; see ``SeriesOutput``."""
        insight = self.insight.combine(*logits)
        cells = insight.heatmap[:, 0].flatten(1)  # (N, h * w)
        score = torch.logit(insight.probability[0, 0], eps=PROBABILITY_EPS)
        return SeriesOutput(score, insight, smooth_max(cells, alpha_for(cells.shape[1])))

    def forward(self, images: Tensor) -> SeriesOutput:
        """Judge a series that fits at once, float (N, 1, S, S)."""
        return self.judge(self.look(images))


def build_series_network(encoder: dict[str, object], *, drop_path: float = 0.0) -> SeriesNetwork:
    """Build an untrained network from the ``encoder`` entry of a bundle."""
    return SeriesNetwork(build_encoder(encoder, drop_path=drop_path))
