"""INSIGHT: a head that says where and, from the same map, whether.

Letters of shapes: B images, C width of the encoder's feature map, K findings, h and w its rows
and columns.

Source: arXiv:2412.02012 and the module that its authors published. Two deviations are switches:
``layer_norm="channel"`` frees the head from one grid size, ``otsu`` thresholds inside forward.
"""

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

LayerNormKind = Literal["channel", "spatial"]


class InsightOutput(NamedTuple):
    """What INSIGHT says of a batch.

    Shapes:
        probability: float (B, K), or (1, K) for a bag; in [0, 1], not calibrated
        heatmap: float (B, K, h, w) in [0, 1], on an absolute scale
        detection_logits: float (B, K, h, w), for the penalty of the loss
    """

    probability: Tensor
    heatmap: Tensor
    detection_logits: Tensor


class ChannelLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of each place of a (B, C, h, w) map."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class InsightHead(nn.Module):
    """Detect in every cell, let the neighbourhood veto, pool the rest to a probability.

    Shapes:
        spatial: float (B, C, h, w)
        returns: see ``InsightOutput``

    Args:
        spatial_width: C.
        findings: K.
        layer_norm: "spatial" normalises over (channels, h, w) with an affine per place, as
            published, and so needs ``grid``; "channel" works on every grid.
        grid: (h, w) for "spatial".
        alpha: sharpness of the pooling; None ties it to the number of pooled cells.
        otsu: zero the cells at or under Otsu's threshold of their own map, also while training.
        bag: pool and threshold over all images of a batch together, as for the slices of a scan.
    """

    def __init__(
        self,
        spatial_width: int,
        findings: int = 1,
        *,
        layer_norm: LayerNormKind = "channel",
        grid: tuple[int, int] | None = None,
        alpha: float | None = None,
        otsu: bool = False,
        bag: bool = False,
    ) -> None:
        super().__init__()
        self.alpha, self.otsu, self.bag = alpha, otsu, bag

        def norm(width: int) -> nn.Module:
            if layer_norm == "channel":
                return ChannelLayerNorm(width)
            if grid is None:
                raise ValueError("a spatial LayerNorm needs the grid that it is made for")
            return nn.LayerNorm([width, *grid])

        def block(before: int, after: int, size: int) -> list[nn.Module]:
            padding = [nn.ReplicationPad2d(size // 2)] if size > 1 else []
            return [*padding, nn.Conv2d(before, after, size), nn.GELU(), norm(after)]

        def branch(size: int) -> nn.Sequential:
            padding = [nn.ReplicationPad2d(size // 2)] if size > 1 else []
            last = [*padding, nn.Conv2d(64, findings, size)]
            return nn.Sequential(
                *block(128, 128, size), *block(128, 64, size), *block(64, 64, size), *last
            )

        self.projection = nn.Sequential(*block(spatial_width, 128, 1))
        self.detection = branch(1)
        self.context = branch(3)

    def logits(self, spatial: Tensor) -> tuple[Tensor, Tensor]:
        """Give the detection and the context logits, (B, K, h, w) each."""
        projected = self.projection(spatial)  # (B, 128, h, w)
        return self.detection(projected), self.context(projected)

    def forward(self, spatial: Tensor) -> InsightOutput:
        """Say where and whether; see the class for shapes."""
        detection, context = self.logits(spatial)
        heatmap = detection.sigmoid() * (1.0 - context.sigmoid())  # d * (1 - c)
        b, k, h, w = heatmap.shape
        pooled = heatmap.flatten(2)  # (B, K, h * w)
        if self.bag:
            pooled = heatmap.transpose(0, 1).reshape(1, k, b * h * w)
        if self.otsu:
            threshold = otsu_threshold(pooled.detach())  # (B or 1, K)
            pooled = pooled * (pooled > threshold[..., None])
            heatmap = heatmap * (heatmap > threshold[..., None, None])
        alpha = alpha_for(pooled.shape[-1]) if self.alpha is None else self.alpha
        return InsightOutput(smooth_max(pooled, alpha), heatmap, detection)


def alpha_for(cells: int) -> float:
    """Choose the pooling's sharpness so that one hot cell among ``cells`` gives about 0.92."""
    return math.log(cells) + 2.5


def smooth_max(values: Tensor, alpha: float) -> Tensor:
    """Pool (..., N) to (...): the mean weighted by softmax(alpha * values), within [min, max]."""
    return (values * torch.softmax(alpha * values, dim=-1)).sum(dim=-1)


def otsu_threshold(values: Tensor, bins: int = 256) -> Tensor:
    """Find for each row of (..., N) the bin centre that separates two classes best; (...).

    A constant row has no two classes: its threshold lies under every value, and nothing is cut.

    Source: Otsu 1979, on a histogram of 256 bins between the row's least and greatest value.
    """
    rows = values.double().cpu().numpy().reshape(-1, values.shape[-1])
    thresholds = [_otsu(row, bins) for row in rows]
    return torch.tensor(thresholds, dtype=values.dtype, device=values.device).reshape(
        values.shape[:-1]
    )


def _otsu(values: np.ndarray, bins: int) -> float:
    if values.min() == values.max():
        return -math.inf
    counts, edges = np.histogram(values, bins)
    centres = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts), np.cumsum(counts[::-1])[::-1]
    moments = counts * centres
    mean_below = np.cumsum(moments) / below
    mean_above = np.cumsum(moments[::-1])[::-1] / above
    between = below[:-1] * above[1:] * (mean_below[:-1] - mean_above[1:]) ** 2
    return float(centres[np.argmax(between)])


def insight_loss(
    output: InsightOutput,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    decoupling: float = 0.01,
) -> Tensor:
    """Binary cross-entropy on the pooled probability, with spectral decoupling.

    Args:
        target: float (B, K) in [0, 1].
        weight: float, broadcast to (B, K).
        decoupling: lambda of ``lambda / 2 * mean(detection_logits ** 2)``, added once.

    Source: the cross-entropy and its clamp as published with INSIGHT; Pezeshki et al. 2021,
    arXiv:2011.09468, for the penalty, which falls on the detection logits alone.
    """
    probability = output.probability.clamp(1e-6, 0.999)
    loss = F.binary_cross_entropy(probability, target, weight=weight)
    return loss + decoupling_penalty(output.detection_logits, decoupling)


def decoupling_penalty(detection_logits: Tensor, decoupling: float) -> Tensor:
    """Give ``lambda / 2 * mean(logits ** 2)``."""
    return decoupling / 2 * detection_logits.square().mean()
