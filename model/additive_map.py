"""The exact additive map: a linear triage head's score, handed out to the places it came from.

The head reads ``u . e + b``, where e is the mean of the last feature map over its places, then
perhaps LayerNorm, a projection and the L2 norm. With the spread of the LayerNorm and the length of
the vector held at their own values, the score is a mean over places, without remainder.

Letters of shapes: B images, C channels of the last feature map, h and w its rows and columns, D
width of the embedding.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AdditiveMap(NamedTuple):
    """Where a linear score comes from: ``score = cells.mean((1, 2)) + bias``.

    Shapes:
        cells: float (B, h, w), in logits; positive speaks for a finding
        bias: float (B,), what no place accounts for
    """

    cells: Tensor
    bias: Tensor

    def score(self) -> Tensor:
        """Give the score that the map adds up to, (B,)."""
        return self.cells.mean(dim=(1, 2)) + self.bias

    def heatmap(self) -> Tensor:
        """Give the probability (B, h, w) that the head would state if every place were like this.

        On an absolute scale in [0, 1], before calibration; it orders places as ``cells`` does.
        """
        return (self.cells + self.bias[:, None, None]).sigmoid()


def additive_map(
    spatial: Tensor,
    direction: Tensor,
    intercept: Tensor,
    *,
    norm: nn.LayerNorm | None = None,
    projection: Tensor | None = None,
    unit: bool = False,
) -> AdditiveMap:
    """Hand a linear score out to the places of the map that was pooled.

    Args:
        spatial: (B, C, h, w), the map whose mean over places is the embedding's origin.
        direction: u (D,), the weights of the linear head; for a head on standardised embeddings,
            with its scaler folded in. For another kind of head its gradient at the embedding
            gives the local picture, which no longer adds up.
        intercept: b, a scalar.
        norm: the LayerNorm after the pooling, None where the encoder has none.
        projection: P (C, D) applied after the norm as ``x @ P``, None where there is none.
        unit: the embedding is divided by its length.

    Source: the derivation holds for pooling before the norm, as in DaViT. Gradient times input
    would not do: LayerNorm and the L2 norm ignore scale, so that its sum over places is zero.
    """
    pooled = spatial.mean(dim=(2, 3))  # (B, C)
    weights = direction if projection is None else projection @ direction  # (C,)
    normalised = pooled if norm is None else _normalise(pooled, norm)
    embedding = normalised if projection is None else normalised @ projection
    length = embedding.norm(dim=1) if unit else torch.ones_like(pooled[:, 0])  # (B,)
    if norm is None:
        cells = torch.einsum("bchw,c->bhw", spatial, weights) / length[:, None, None]
        return AdditiveMap(cells, intercept.expand_as(length))
    spread = (pooled.var(dim=1, unbiased=False) + norm.eps).sqrt()  # (B,)
    gamma = norm.weight if norm.weight is not None else torch.ones_like(weights)
    beta = norm.bias if norm.bias is not None else torch.zeros_like(weights)
    # Centring each place over its channels centres their mean too: LayerNorm's own subtraction.
    centred = spatial - spatial.mean(dim=1, keepdim=True)
    cells = torch.einsum("bchw,c->bhw", centred, gamma * weights)
    return AdditiveMap(
        cells / (spread * length)[:, None, None], (beta @ weights) / length + intercept
    )


def triage_map(triage: nn.Sequential, coarse: Tensor, norm: nn.LayerNorm | None) -> AdditiveMap:
    """Explain the triage head of a network.

    The map adds up to the triage head's part of the score; INSIGHT's log odds are the other part.

    Args:
        triage: The head; its last layer is linear.
        coarse: (B, C, h, w), the last stage of the encoder; see ``FeaturePyramid``.
        norm: The encoder's LayerNorm after pooling, None where it has none.
    """
    linear = triage[-1]
    if not isinstance(linear, nn.Linear):
        raise TypeError("the triage head does not end in a linear layer")
    return additive_map(coarse, linear.weight[0], linear.bias[0], norm=norm)


def _normalise(pooled: Tensor, norm: nn.LayerNorm) -> Tensor:
    # Not norm(pooled): timm's LayerNorm2d wants maps.
    return F.layer_norm(pooled, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
