"""A triage network with the loss that fine-tuning minimises, and where it starts from.

Letters of shapes: B images, S pixels along a side, F findings named one by one.
"""

import torch
import torch.nn.functional as F
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from common.errors import BundleError
from model.bundles import Bundle
from model.encoders.encoder import Features
from model.insight import insight_loss
from model.network import TriageNetwork, build_network
from model.training.feature_encoding import ENCODER_PREFIX

HEADS = ("triage.", "insight.")


class FinetuneModel(nn.Module):
    """Give the loss of a chunk: the triage score, INSIGHT, and the findings where they are named.

    Shapes:
        images: float (B, 1, S, S)
        target: float (B,), 1 is abnormal
        findings: float (B, F); NaN in rows where nobody named them
        share: float, the chunk's part of the batch
        named_share: float, its part of the batch's named findings
    """

    def __init__(
        self, network: TriageNetwork, findings: int, *, insight_share: float, findings_share: float
    ) -> None:
        super().__init__()
        self.network = network
        self.findings = nn.Linear(network.encoder.embedding_width, findings) if findings else None
        self._insight_share, self._findings_share = insight_share, findings_share

    def forward(
        self, images: Tensor, target: Tensor, findings: Tensor, share: Tensor, named_share: Tensor
    ) -> Tensor:
        """Add up what the heads cost; heads and losses are computed in float32."""
        seen = self.network.encoder(images)
        with torch.autocast(images.device.type, enabled=False):
            features = Features(seen.embedding.float(), seen.spatial.float())
            output = self.network.read(features)
            loss = F.binary_cross_entropy_with_logits(output.score, target)
            loss = loss + self._insight_share * insight_loss(output.insight, target[:, None])
            loss = loss * share
            if self.findings is not None:
                logits = self.findings(features.embedding)
                named = ~findings.isnan()
                each = F.binary_cross_entropy_with_logits(
                    logits, findings.nan_to_num(), reduction="none"
                )
                mean = (each * named).sum() / named.sum().clamp_min(1)
                loss = loss + self._findings_share * named_share * mean
        return loss


def starting_network(
    bundle: Bundle, *, seed: int, drop_path: float = 0.0, dropout: float = 0.0
) -> TriageNetwork:
    """Build a bundle's network with its weights; heads that it has not are made at random.

    Raises:
        BundleError: the weights do not fit the encoder that the bundle names.
    """
    torch.manual_seed(seed)
    try:
        network = build_network(bundle.encoder, drop_path=drop_path, dropout=dropout)
        weights = {name: tensor.float() for name, tensor in load_file(bundle.weights).items()}
        if not any(
            name.startswith(ENCODER_PREFIX) for name in weights
        ):  # an imported encoder alone
            weights = {f"{ENCODER_PREFIX}{name}": tensor for name, tensor in weights.items()}
        missing, unexpected = network.load_state_dict(weights, strict=False)
    except (ValidationError, RuntimeError, SafetensorError) as error:
        raise BundleError(f"{bundle.folder}: the weights cannot be loaded: {error}") from error
    lost = [name for name in missing if not name.startswith(HEADS)]
    if lost or unexpected:
        first = [*lost, *unexpected][0]
        wrong = f"{len(lost)} missing, {len(unexpected)} unknown, the first {first}"
        raise BundleError(f"{bundle.folder}: the weights do not fit the encoder: {wrong}")
    return network
