"""The network of the image pipelines: one encoder, a triage head, INSIGHT on its feature map."""

from typing import NamedTuple

from torch import Tensor, nn

from model.encoders.compact import CompactEncoder, CompactSpec
from model.encoders.encoder import Encoder
from model.insight import InsightHead, InsightOutput


class TriageOutput(NamedTuple):
    """What the network says of a batch.

    Shapes:
        score: float (B,), the raw logit of the triage head
        insight: INSIGHT's output with K = 1
        embedding: float (B, D), the encoder's
    """

    score: Tensor
    insight: InsightOutput
    embedding: Tensor


class TriageNetwork(nn.Module):
    """Score an image from its embedding; show where from its feature map.

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
        features = self.encoder(images)
        score = self.triage(features.embedding)[:, 0]  # (B,)
        return TriageOutput(score, self.insight(features.spatial), features.embedding)


def build_network(
    encoder: dict[str, object], *, drop_path: float = 0.0, dropout: float = 0.0
) -> TriageNetwork:
    """Build an untrained network from the ``encoder`` entry of a bundle."""
    spec = CompactSpec.model_validate(encoder)
    return TriageNetwork(CompactEncoder(spec, drop_path), dropout=dropout)
