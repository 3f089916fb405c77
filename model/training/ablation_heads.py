"""The heads that stand beside INSIGHT: what each leaves out, or pools in another way.

All share INSIGHT's projection and the shape of its branches, so that an arm differs from another
in what its name says and in nothing else.

Letters of shapes: B images, C width of the map, h and w its rows and columns, K = 1.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from model.insight import (
    ChannelLayerNorm,
    InsightHead,
    InsightOutput,
    alpha_for,
    branch,
    projection,
    smooth_max,
)
from model.multi_scale_insight import MultiScaleInsightHead

LSE_GAMMA = 0.5
DECOUPLING = 0.01

Pooling = Literal["mean", "lse", "smooth_max", "pcam", "abmil"]


class OneBranchHead(nn.Module):
    """One branch without a veto, of 1x1 or 3x3 convolutions, under one of several poolings.

    Shapes:
        spatial: float (B, C, h, w)
        returns: see ``InsightOutput``; the heatmap keeps the order of the places that the pooling
            weighs, on a scale of its own in [0, 1]

    Source: "mean" is class activation mapping, Zhou et al. 2016; "lse" Pinheiro and Collobert
    2015; "pcam" Ye et al. 2020, arXiv:2005.14480; "abmil" Ilse et al. 2018, arXiv:1802.04712,
    gated.
    """

    def __init__(self, spatial_width: int, pooling: Pooling, size: int = 1) -> None:
        super().__init__()
        self.pooling = pooling
        self.projection = projection(spatial_width, ChannelLayerNorm)
        self.branch = branch(1, size, ChannelLayerNorm)
        if pooling == "abmil":
            self.attend = nn.ModuleDict(
                {name: nn.Conv2d(64, 32, 1) for name in ("value", "gate")}
                | {"weight": nn.Conv2d(32, 1, 1)}
            )

    def forward(self, spatial: Tensor) -> InsightOutput:
        """Say where and whether; see the class for shapes."""
        features = self.branch[:-1](self.projection(spatial))  # (B, 64, h, w), maybe padded
        classify = self.branch[-1]
        logits = classify(features)  # (B, 1, h, w)
        heatmap = logits.sigmoid()
        if self.pooling == "smooth_max":
            flat = heatmap.flatten(2)
            return InsightOutput(smooth_max(flat, alpha_for(flat.shape[-1])), heatmap, logits)
        if self.pooling == "mean":
            score = logits.mean(dim=(2, 3))
        elif self.pooling == "lse":
            flat = (LSE_GAMMA * logits).flatten(2)
            score = (flat.logsumexp(dim=2) - math.log(flat.shape[2])) / LSE_GAMMA
        elif self.pooling == "pcam":
            weights = heatmap / heatmap.sum(dim=(2, 3), keepdim=True)
            score = _classify_pooled(classify, features, weights)
        else:
            weights = self._attention(features)
            score = _classify_pooled(classify, features, weights)
            even = weights * weights.shape[2] * weights.shape[3]  # 1 is an even share
            heatmap = even / (1 + even)
        return InsightOutput(score.sigmoid(), heatmap, logits)

    def _attention(self, features: Tensor) -> Tensor:
        gated = self.attend["value"](features).tanh() * self.attend["gate"](features).sigmoid()
        scores = self.attend["weight"](gated)
        return scores.flatten(2).softmax(dim=2).view_as(scores)


def _classify_pooled(classify: nn.Module, features: Tensor, weights: Tensor) -> Tensor:
    pooled = (features * weights).sum(dim=(2, 3), keepdim=True)  # (B, 64, 1, 1)
    return classify(pooled).flatten(1)


@dataclass(frozen=True)
class Arm:
    """One row of the ablation.

    ``build`` takes the width of the encoder's map and that of its other stage; ``two_stages``
    says that the head reads both.
    """

    name: str
    what: str
    build: Callable[[int, int], nn.Module]
    decoupling: float = DECOUPLING
    two_stages: bool = False


REFERENCE = "insight"
ARMS: tuple[Arm, ...] = (
    Arm(REFERENCE, "INSIGHT: alpha tied to cells, lambda 0.01", lambda c, _: InsightHead(c)),
    Arm("insight_otsu", "with Otsu in forward", lambda c, _: InsightHead(c, otsu=True)),
    Arm("insight_alpha_4", "alpha 4", lambda c, _: InsightHead(c, alpha=4.0)),
    Arm("insight_alpha_8", "alpha 8", lambda c, _: InsightHead(c, alpha=8.0)),
    Arm("insight_alpha_12", "alpha 12", lambda c, _: InsightHead(c, alpha=12.0)),
    Arm("insight_lambda_0", "lambda 0", lambda c, _: InsightHead(c), decoupling=0.0),
    Arm("insight_lambda_01", "lambda 0.1", lambda c, _: InsightHead(c), decoupling=0.1),
    Arm(
        "insight_two_stages",
        "multi-scale: the last two stages",
        MultiScaleInsightHead,
        two_stages=True,
    ),
    Arm("detection_only", "1x1 branch alone", lambda c, _: OneBranchHead(c, "smooth_max")),
    Arm("context_only", "3x3 branch alone", lambda c, _: OneBranchHead(c, "smooth_max", 3)),
    Arm("gap_cam", "mean of cell logits, CAM", lambda c, _: OneBranchHead(c, "mean")),
    Arm("lse", f"log-sum-exp, gamma {LSE_GAMMA}", lambda c, _: OneBranchHead(c, "lse")),
    Arm("pcam", "probabilistic CAM", lambda c, _: OneBranchHead(c, "pcam")),
    Arm("abmil", "gated attention", lambda c, _: OneBranchHead(c, "abmil")),
)


def build_arm(arm: Arm, spatial_width: int, other_width: int, seed: int) -> nn.Module:
    """Build an untrained head; the same seed gives the same weights."""
    torch.manual_seed(seed)
    return arm.build(spatial_width, other_width)
