"""Zero-shot scoring: how near an image lies to prompts, without any training.

The shares are a softmax over the labels that were asked, sharpened by the encoder's own scale.
They are not calibrated and mean nothing alone: another list of labels gives other shares.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from common.errors import BundleError, ConfigurationError
from model.bundles import Bundle
from model.clip_tokenizer import ClipTokenizer
from model.encoders.medimageinsight import MedImageInsightSpec
from model.encoders.medimageinsight_text import MedImageInsightText
from model.execution import load_module
from model.pipelines import load_encoder

TEXT_FILE = "text.safetensors"
PLACE = "{}"
# <modality> <body part> <view> <condition>: how the encoder was trained; prose does worse.
CHEST_TEMPLATES = ("x-ray chest anteroposterior {}", "x-ray chest posteroanterior {}")


class ZeroShotScores(NamedTuple):
    """What images have in common with labels.

    Shapes:
        cosines: float (B, L), in [-1, 1]
        shares: float (B, L), each row sums to 1
    """

    cosines: Tensor
    shares: Tensor


def score_labels(images: Tensor, labels: Tensor, scale: float) -> ZeroShotScores:
    """Compare embeddings: softmax(scale * cosine) over the labels.

    Shapes:
        images: float (B, D), of length 1
        labels: float (L, D), of length 1

    Source: Radford et al. 2021, arXiv:2103.00020, section 2.3; ``scale`` is exp(logit_scale).
    """
    cosines = images @ labels.T
    return ZeroShotScores(cosines, (scale * cosines).softmax(dim=-1))


def write_prompts(label: str, templates: Sequence[str]) -> list[str]:
    """Put a label into each template.

    Raises:
        ConfigurationError: a template has no place for it, or more than one.
    """
    for template in templates:
        if template.count(PLACE) != 1:
            raise ConfigurationError(f"template {template!r} needs {PLACE} once, for the label")
    return [template.replace(PLACE, label) for template in templates]


class ZeroShot:
    """Image and text encoder of an imported bundle, on a device, in float32."""

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        if bundle.encoder.get("kind") != "medimageinsight" or TEXT_FILE not in bundle.files:
            raise BundleError(
                f"{bundle.folder} has no text encoder: zero-shot scoring needs a bundle that "
                "`firstread models import medimageinsight` wrote"
            )
        spec = MedImageInsightSpec.model_validate(bundle.encoder)
        try:
            weights = load_file(bundle.folder / TEXT_FILE)
            text = load_module(lambda: MedImageInsightText(spec.text), weights, large=True)
        except (ValueError, RuntimeError, SafetensorError) as error:
            raise BundleError(f"{bundle.folder}: {TEXT_FILE} cannot be loaded: {error}") from error
        self.device = device
        self._text = text.to(device)
        self._encoder = load_encoder(bundle, device)
        self._tokenizer = ClipTokenizer(bundle.folder)

    @property
    def scale(self) -> float:
        """What cosines are multiplied by before the softmax."""
        return self._text.scale

    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Encode prompts: float (P, D), of length 1."""
        ids, mask = self._tokenizer.encode(prompts)
        with torch.inference_mode():
            return self._text(
                torch.from_numpy(ids).to(self.device), torch.from_numpy(mask).to(self.device)
            )

    def embed_labels(self, labels: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Encode labels as the mean of their prompts, brought to length 1 again: float (L, D).

        Source: Radford et al. 2021, section 3.1.4, on ensembles in the space of embeddings.
        """
        prompts = [prompt for label in labels for prompt in write_prompts(label, templates)]
        of_prompts = self.embed_prompts(prompts).view(len(labels), len(templates), -1)
        return F.normalize(of_prompts.mean(dim=1), dim=-1)

    def embed_images(self, images: Tensor) -> Tensor:
        """Encode prepared images, float (B, 1, S, S) or (B, 3, S, S): float (B, D), of length 1."""
        with torch.inference_mode():
            return self._encoder(images.to(self.device)).embedding
