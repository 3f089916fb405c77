"""Run a network over many images in memory."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from model.network import TriageNetwork


class Predicted(NamedTuple):
    """What a network says of N images.

    Shapes:
        score: float64 (N,), raw logit
        insight_probability: float64 (N,)
        heatmap: float32 (N, h, w) in [0, 1]
        embedding: float32 (N, D)
    """

    score: NDArray[np.float64]
    insight_probability: NDArray[np.float64]
    heatmap: NDArray[np.float32]
    embedding: NDArray[np.float32]


def predict_images(
    network: TriageNetwork,
    images: NDArray[np.uint8] | NDArray[np.float32],
    mean: float,
    std: float,
    batch_size: int = 32,
) -> Predicted:
    """Predict images (N, S, S), uint8 or float in [0, 1], standardised here.

    Images that are standardised already come with mean 0 and std 1.
    """
    scale = 255.0 if images.dtype == np.uint8 else 1.0
    parts: list[Predicted] = []
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            batch = torch.from_numpy(images[start : start + batch_size].astype(np.float32) / scale)
            output = network((batch[:, None] - mean) / std)
            parts.append(
                Predicted(
                    output.score.double().numpy(),
                    output.insight.probability[:, 0].double().numpy(),
                    output.insight.heatmap[:, 0].numpy(),
                    output.embedding.numpy(),
                )
            )
    network.train(was_training)
    return Predicted(*(np.concatenate(column) for column in zip(*parts, strict=True)))
