"""INSIGHT: a head that says where and, from the same map, whether.

Letters of shapes: B images, C width of the encoder's feature map, K findings, h and w its rows
and columns.

Source: arXiv:2412.02012 and the module that its authors published. Two deviations are switches:
``layer_norm="channel"`` frees the head from one grid size, ``otsu`` thresholds inside forward.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

LayerNormKind = Literal["channel", "spatial"]
NormFactory = Callable[[int], nn.Module]


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


def norm_factory(kind: LayerNormKind, grid: tuple[int, int] | None) -> NormFactory:
    """Choose what normalises a map of a given width.

    Raises:
        ValueError: "spatial" without the grid that it is made for.
    """
    if kind == "channel":
        return ChannelLayerNorm
    if grid is None:
        raise ValueError("a spatial LayerNorm needs the grid that it is made for")
    rows, columns = grid
    return lambda width: nn.LayerNorm([width, rows, columns])


def projection(spatial_width: int, norm: NormFactory) -> nn.Sequential:
    """Build what both branches share: 1x1 from the encoder's width to 128."""
    return nn.Sequential(*_block(spatial_width, 128, 1, norm))


def branch(findings: int, size: int, norm: NormFactory) -> nn.Sequential:
    """Build four convolutions of ``size`` x ``size``, 128-128-64-64-K, edges replicated."""
    return nn.Sequential(
        *_block(128, 128, size, norm),
        *_block(128, 64, size, norm),
        *_block(64, 64, size, norm),
        *_convolution(64, findings, size),
    )


def _block(before: int, after: int, size: int, norm: NormFactory) -> list[nn.Module]:
    return [*_convolution(before, after, size), nn.GELU(), norm(after)]


def _convolution(before: int, after: int, size: int) -> list[nn.Module]:
    padding = [nn.ReplicationPad2d(size // 2)] if size > 1 else []
    return [*padding, nn.Conv2d(before, after, size)]


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
        bag: pool and threshold over all images of a batch together, as for the slices of a scan
            or the tiles of a slide; context never crosses from one to the next.
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
        norm = norm_factory(layer_norm, grid)
        self.projection = projection(spatial_width, norm)
        self.detection = branch(findings, 1, norm)
        self.context = branch(findings, 3, norm)

    def logits(self, spatial: Tensor) -> tuple[Tensor, Tensor]:
        """Give the detection and the context logits, (B, K, h, w) each."""
        projected = self.projection(spatial)  # (B, 128, h, w)
        return self.detection(projected), self.context(projected)

    def forward(self, spatial: Tensor) -> InsightOutput:
        """Say where and whether; see the class for shapes."""
        return self.combine(*self.logits(spatial))

    def combine(self, detection: Tensor, context: Tensor) -> InsightOutput:
        """Fuse and pool the logits; those of a large bag may come from ``logits`` piece by piece.

        Shapes:
            detection, context: float (B, K, h, w)
        """
        heatmap = detection.sigmoid() * (1.0 - context.sigmoid())  # d * (1 - c)
        return self.pool(heatmap, detection)

    def pool(self, heatmap: Tensor, detection: Tensor) -> InsightOutput:
        """Turn a heatmap into a probability, image by image or as one bag."""
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


class StreamedSmoothMax:
    """SmoothMax over more cells than memory holds: feed maps one after the other, then read.

    For the tiles of a slide or the slices of a long series. Maps lie in [0, 1], as ``smooth_max``
    of all of them at once; ``alpha`` is ``alpha_for`` the number of all cells to come.
    """

    def __init__(self, alpha: float) -> None:
        self._alpha = alpha
        self._weighted: Tensor | float = 0.0
        self._weights: Tensor | float = 0.0

    def add(self, heatmap: Tensor) -> None:
        """Take in maps (N, K, h, w)."""
        values = heatmap.detach().double()
        weights = (self._alpha * (values - 1)).exp()  # at most 1, whatever alpha
        self._weighted = self._weighted + (values * weights).sum(dim=(0, 2, 3))
        self._weights = self._weights + weights.sum(dim=(0, 2, 3))

    def probability(self) -> Tensor:
        """Give the pooled probability, double (K,).

        Raises:
            ValueError: nothing was taken in.
        """
        if not (isinstance(self._weighted, Tensor) and isinstance(self._weights, Tensor)):
            raise ValueError("no map was added, so there is nothing to pool")
        return self._weighted / self._weights


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
    label_smoothing: float = 0.0,
) -> Tensor:
    """Binary cross-entropy on the pooled probability, with spectral decoupling.

    Args:
        target: float (B, K) in [0, 1].
        weight: float, broadcast to (B, K).
        decoupling: lambda of ``lambda / 2 * mean(detection_logits ** 2)``, added once. The
            published WSI script multiplies by lambda twice; we do not.
        label_smoothing: s of ``y * (1 - s) + s / 2``; for training alone.

    Source: the cross-entropy and its clamp as published with INSIGHT; Pezeshki et al. 2021,
    arXiv:2011.09468, for the penalty, which falls on the detection logits alone.
    """
    probability = output.probability.clamp(1e-6, 0.999)
    target = target * (1 - label_smoothing) + label_smoothing / 2
    loss = F.binary_cross_entropy(probability, target, weight=weight)
    return loss + decoupling_penalty(output.detection_logits, decoupling)


def decoupling_penalty(detection_logits: Tensor, decoupling: float) -> Tensor:
    """Give ``lambda / 2 * mean(logits ** 2)``."""
    return decoupling / 2 * detection_logits.square().mean()
