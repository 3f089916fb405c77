"""From a bundle on disk to predictions: one code path for every image pipeline.

Letters of shapes: B images, S pixels along a side, h and w rows and columns of the heatmap.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from common.errors import BundleError, ConfigurationError, PredictionError
from model.bundles import Bundle
from model.network import TriageNetwork, build_network


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

    def __init__(self, bundle: Bundle, network: TriageNetwork, device: torch.device) -> None:
        self.bundle = bundle
        self.device = device
        network = network.to(device).eval()
        self._network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def predict(self, images: NDArray[np.float32]) -> list[Prediction]:
        """Predict prepared images, float32 (B, S, S), in order.

        An image's prediction does not depend on the others in its batch, but for rounding.

        Raises:
            PredictionError: the network gave no finite answer for at least one of them.
        """
        size_px = self.bundle.preprocessing.size_px
        if images.ndim != 3 or images.shape[1:] != (size_px, size_px):
            raise ValueError(f"images must be (B, {size_px}, {size_px}), not {images.shape}")
        with torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))[:, None]
            batch = batch.to(self.device).contiguous(memory_format=torch.channels_last)
            output = self._network(batch)
            scores = output.score.double().cpu().numpy()
            probabilities = output.insight.probability[:, 0].double().cpu().numpy()
            heatmaps = output.insight.heatmap[:, 0].half().cpu().numpy()  # (B, h, w)
        if not (np.isfinite(scores).all() and np.isfinite(probabilities).all()):
            raise PredictionError("the network gave no finite answer")
        return [
            Prediction(float(score), float(probability), heatmap)
            for score, probability, heatmap in zip(scores, probabilities, heatmaps, strict=True)
        ]


def load_pipeline(bundle: Bundle, device: str = "auto") -> LoadedPipeline:
    """Load a bundle's network; ``device`` is "auto" (CUDA if there is one) or torch's name of one.

    Raises:
        BundleError: the weights do not fit the encoder that the bundle names.
        ConfigurationError: there is no such device.
    """
    chosen = choose_device(device)
    try:
        network = build_network(bundle.encoder)
        weights = load_file(bundle.weights)
        network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    except (ValueError, RuntimeError, SafetensorError) as error:
        raise BundleError(f"{bundle.folder}: the weights cannot be loaded: {error}") from error
    return LoadedPipeline(bundle, network, chosen)


def choose_device(device: str) -> torch.device:
    """Resolve "auto" and refuse a device that is not there.

    Raises:
        ConfigurationError: the name is unknown or the device absent.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(f"device {device!r} cannot be used: {error}") from error
    return chosen
