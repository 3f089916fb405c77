"""From a bundle on disk to predictions: one code path for every image pipeline.

Letters of shapes: B images, S pixels along a side, h and w rows and columns of the heatmap.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from common.errors import BundleError, PredictionError
from model.bundles import HEAD_PREFIX, Bundle, tensor_names
from model.encoders.building import build_encoder
from model.encoders.encoder import Encoder
from model.execution import (
    BATCH_SIZES,
    PRETRAINED,
    Execution,
    ExecutionMode,
    HalfPrecisionEncoder,
    choose_device,
    choose_execution,
    compile_forward,
    fill_up,
    fixed_batch,
    load_module,
)
from model.network import TriageNetwork, build_network

__all__ = ["LoadedPipeline", "Prediction", "choose_device", "load_encoder", "load_pipeline"]

ENCODER_PREFIX = "encoder."


class Prediction(NamedTuple):
    """What the network says of one image; ``Bundle.interpret`` reads the score.

    Attributes:
        score: raw logit.
        insight_probability: INSIGHT's own, in [0, 1], not calibrated.
        heatmap: float16 (h, w) in [0, 1], on an absolute scale; row 0 is the top of the input.
    """

    score: float
    insight_probability: float
    heatmap: NDArray[np.float16]


class LoadedPipeline:
    """A bundle whose network stands ready on a device."""

    def __init__(self, bundle: Bundle, network: TriageNetwork, execution: Execution) -> None:
        self.bundle = bundle
        self.execution = execution
        self.device = execution.device
        if execution.dtype == torch.bfloat16:
            network.encoder = HalfPrecisionEncoder(network.encoder)
        network = network.to(self.device).eval()
        network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._network = compile_forward(network, self.device) if execution.compiled else network

    def predict(self, images: NDArray[np.float32]) -> list[Prediction]:
        """Predict prepared images, float32 (B, S, S) or (B, 3, S, S), in order.

        An image's prediction does not depend on the others in its batch, but for rounding.

        Raises:
            PredictionError: the network gave no finite answer for at least one of them.
        """
        size_px = self.bundle.preprocessing.size_px
        grey = images.ndim == 3
        if images.shape[-2:] != (size_px, size_px) or not (grey or images.shape[1:2] == (3,)):
            raise ValueError(f"images must be (B, {size_px}, {size_px}), not {images.shape}")
        largest = BATCH_SIZES[-1] if self.execution.compiled else len(images)
        return [
            prediction
            for start in range(0, len(images), max(largest, 1))
            for prediction in self._predict(images[start : start + largest], grey=grey)
        ]

    def _predict(self, images: NDArray[np.float32], *, grey: bool) -> list[Prediction]:
        count = len(images)
        with torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))
            batch = batch[:, None] if grey else batch
            if self.execution.compiled:
                batch = fill_up(batch, fixed_batch(count))
            batch = batch.to(self.device).contiguous(memory_format=torch.channels_last)
            output = self._network(batch)
            scores = output.score[:count].double().cpu().numpy()
            probabilities = output.insight.probability[:count, 0].double().cpu().numpy()
            heatmaps = output.insight.heatmap[:count, 0].half().cpu().numpy()  # (B, h, w)
        if not (np.isfinite(scores).all() and np.isfinite(probabilities).all()):
            raise PredictionError("the network gave no finite answer")
        return [
            Prediction(float(score), float(probability), heatmap)
            for score, probability, heatmap in zip(scores, probabilities, heatmaps, strict=True)
        ]


def load_pipeline(
    bundle: Bundle, device: str = "auto", mode: ExecutionMode | None = None
) -> LoadedPipeline:
    """Load a bundle's network; ``device`` is "auto" (CUDA if there is one) or torch's name of one.

    ``mode`` None is the site's setting FIRSTREAD_EXECUTION.

    Raises:
        BundleError: the bundle has no head, or the weights do not fit the encoder that it names.
        ConfigurationError: there is no such device.
    """
    kind = bundle.encoder.get("kind")
    execution = choose_execution(kind, device, mode)
    if not any(name.startswith(HEAD_PREFIX) for name in tensor_names(bundle.weights)):
        raise BundleError(
            f"{bundle.folder} is an encoder without a head: complete it with "
            "`firstread train insight` or `firstread train finetune`"
        )
    with _weights_of(bundle) as weights:
        large = kind in PRETRAINED
        network = load_module(lambda: build_network(bundle.encoder), weights, large=large)
    return LoadedPipeline(bundle, network, execution)


def load_encoder(bundle: Bundle, device: torch.device | str = "cpu") -> Encoder:
    """Load a bundle's encoder alone, in float32; a bundle without a head has one too.

    Raises:
        BundleError: the weights do not fit the encoder that the bundle names.
    """
    with _weights_of(bundle) as weights:
        own = {
            name.removeprefix(ENCODER_PREFIX): tensor
            for name, tensor in weights.items()
            if name.startswith(ENCODER_PREFIX)
        }
        large = bundle.encoder.get("kind") in PRETRAINED
        encoder = load_module(lambda: _build_module(bundle.encoder), own, large=large)
    return encoder.to(device)  # pyright: ignore[reportReturnType]


def _build_module(encoder: dict[str, object]) -> nn.Module:
    module = build_encoder(encoder)
    if not isinstance(module, nn.Module):
        raise TypeError("an encoder is a module")
    return module


@contextmanager
def _weights_of(bundle: Bundle) -> Iterator[dict[str, Tensor]]:
    """Open a bundle's weights; whatever does not fit them is the bundle's fault."""
    try:
        yield load_file(bundle.weights)
    except (ValueError, RuntimeError, SafetensorError) as error:
        raise BundleError(f"{bundle.folder}: the weights cannot be loaded: {error}") from error
