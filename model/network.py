"""The network of the image pipelines: one encoder, a triage head, INSIGHT on its feature map."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.encoders.building import build_encoder
from model.encoders.encoder import Encoder, Features
from model.insight import InsightHead, InsightOutput

PROBABILITY_EPS = 1e-4


class TriageOutput(NamedTuple):
    """What the network says of a batch.

    Shapes:
        score: float (B,), the raw logit of the image
        insight: INSIGHT's output with K = 1
        embedding: float (B, D), the encoder's
    """

    score: Tensor
    insight: InsightOutput
    embedding: Tensor


class TriageNetwork(nn.Module):
    """Score an image from its embedding and its places; show where from its feature map.

    The score is a sum of log odds: a linear triage head on the embedding, which sees the whole,
    and INSIGHT's pooled probability, which sees what is small. A mean over all places alone
    hardly moves for a lesion of one cell.

    Shapes:
        images: float (B, 1, S, S), standardised
        returns: see ``TriageOutput``
    """

    def __init__(self, encoder: Encoder, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.encoder = encoder
        self.triage = nn.Sequential(nn.Dropout(dropout), nn.Linear(encoder.embedding_width, 1))
        self.insight = InsightHead(encoder.spatial_width)

    def forward(self, images: Tensor) -> TriageOutput:
        """Score a batch; see the class for shapes."""
        return self.read(self.encoder(images))

    def read(self, features: Features) -> TriageOutput:
        """Score a batch that is encoded already."""
        insight = self.insight(features.spatial)
        of_places = torch.logit(insight.probability[:, 0], eps=PROBABILITY_EPS)  # (B,)
        score = self.triage(features.embedding)[:, 0] + of_places
        return TriageOutput(score, insight, features.embedding)


def build_network(
    encoder: dict[str, object], *, drop_path: float = 0.0, dropout: float = 0.0
) -> TriageNetwork:
    """Build an untrained network from the ``encoder`` entry of a bundle."""
    return TriageNetwork(build_encoder(encoder, drop_path=drop_path), dropout=dropout)
