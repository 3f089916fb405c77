"""From a ``chest_ct`` bundle to a score and a heatmap of a series; for research only.

Letters of shapes: N slices, S pixels along a side, h and w rows and columns of the heatmap.
"""

from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from common.errors import BundleError, PredictionError
from model.bundles import Bundle
from model.ct.network import SeriesNetwork, SliceLogits, build_series_network
from model.execution import PRETRAINED, HalfPrecisionEncoder, choose_execution, load_module

SLICES_AT_ONCE = 8


class SeriesPrediction(NamedTuple):
    """What the network says of one series, its slices in the order given.

    Attributes:
        score: raw logit; there is no calibrator that could read it.
        insight_probability: INSIGHT's own over the series, in [0, 1], not calibrated.
        heatmap: float16 (N, h, w) in [0, 1], on an absolute scale; row 0 is the top of a slice.
        slice_probability: float32 (N,), INSIGHT's own of each slice alone.
    """

    score: float
    insight_probability: float
    heatmap: NDArray[np.float16]
    slice_probability: NDArray[np.float32]


class CtPipeline:
    """A bundle whose network stands ready on a device."""

    def __init__(self, bundle: Bundle, network: SeriesNetwork, device: torch.device) -> None:
        self.bundle = bundle
        self.device = device
        self._network = network.to(device).eval()

    def predict(self, slices: Iterable[NDArray[np.float32]]) -> SeriesPrediction:
        """Predict a series from its prepared slices, float32 (S, S) each.

        Slices are taken as they come, ``SLICES_AT_ONCE`` at a time: what is kept of each is the
        map of its cells, so memory does not follow the length of the scan.

        Raises:
            PredictionError: no slices, or the network gave no finite answer.
        """
        pieces = []
        waiting = iter(slices)
        with torch.inference_mode():
            while batch := list(islice(waiting, SLICES_AT_ONCE)):
                images = torch.from_numpy(np.stack(batch)).to(self.device)[:, None]
                pieces.append(self._network.look(images))
            if not pieces:
                raise PredictionError("a series without slices")
            detection, context = (torch.cat(maps) for maps in zip(*pieces, strict=True))
            output = self._network.judge(SliceLogits(detection, context))
            score = float(output.score)
            probability = float(output.insight.probability[0, 0])
            heatmap = output.insight.heatmap[:, 0].half().cpu().numpy()  # (N, h, w)
            each = output.slice_probability.float().cpu().numpy()  # (N,)
        if not (np.isfinite([score, probability]).all() and np.isfinite(each).all()):
            raise PredictionError("the network gave no finite answer")
        return SeriesPrediction(score, probability, heatmap, each)


def load_ct_pipeline(bundle: Bundle, device: str = "auto") -> CtPipeline:
    """Load the network of a ``chest_ct`` bundle; ``device`` as for ``load_pipeline``.

    Raises:
        BundleError: another pipeline's bundle, no window, or weights that do not fit.
        ConfigurationError: there is no such device.
    """
    if bundle.pipeline != "chest_ct" or bundle.hounsfield_window is None:
        raise BundleError(f"{bundle.folder}: not a chest_ct bundle with a hounsfield_window")
    if bundle.preprocessing.stretch:
        raise BundleError(f"{bundle.folder}: a scan in HU is not stretched to its own range")
    kind = bundle.encoder.get("kind")
    execution = choose_execution(kind, device, "eager")
    try:
        network = load_module(
            lambda: build_series_network(bundle.encoder),
            load_file(bundle.weights),
            large=kind in PRETRAINED,
        )
    except (ValueError, RuntimeError, SafetensorError) as error:
        raise BundleError(f"{bundle.folder}: the weights cannot be loaded: {error}") from error
    if execution.dtype == torch.bfloat16:
        network.encoder = HalfPrecisionEncoder(network.encoder)
    return CtPipeline(bundle, network, execution.device)
