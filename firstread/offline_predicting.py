"""Predict examined files in this process, each by the model that its tags ask for."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from common.errors import PredictionError
from firstread.offline_examining import Seen
from model.bundles import Bundle

if TYPE_CHECKING:
    from model.pipelines import Prediction


class Pipeline(Protocol):
    """What ``model.pipelines.load_pipeline`` gives."""

    bundle: Bundle

    def predict(self, images: NDArray[np.float32]) -> "list[Prediction]":
        """Predict prepared images (B, S, S), in order."""
        ...


class Predictor:
    """Predicts a mixed batch, each image by its own pipeline; a bad image fails alone."""

    def __init__(self, load: Callable[[Bundle], Pipeline]) -> None:
        self._load = load
        self._pipelines: dict[str, Pipeline] = {}

    def predict(self, batch: list[Seen]) -> "list[Prediction | str | None]":
        """Give a prediction, the reason for its failure, or None where there is nothing to do."""
        answers: list[Prediction | str | None] = [None] * len(batch)
        by_bundle: dict[str, tuple[Bundle, dict[int, NDArray[np.float32]]]] = {}
        for place, one in enumerate(batch):
            if one.bundle and one.examined and one.examined.pixels is not None:
                _, waiting = by_bundle.setdefault(one.bundle.sha256, (one.bundle, {}))
                waiting[place] = one.examined.pixels
        for bundle, waiting in by_bundle.values():
            predicted = self._predict_alike(self._ready(bundle), list(waiting.values()))
            for place, answer in zip(waiting, predicted, strict=True):
                answers[place] = answer
        return answers

    def _ready(self, bundle: Bundle) -> Pipeline:
        if bundle.sha256 not in self._pipelines:
            self._pipelines[bundle.sha256] = self._load(bundle)
        return self._pipelines[bundle.sha256]

    def _predict_alike(
        self, pipeline: Pipeline, images: list[NDArray[np.float32]]
    ) -> "list[Prediction | str]":
        try:
            return list(pipeline.predict(np.stack(images)))
        except PredictionError as error:
            if len(images) == 1:
                return [str(error)]
            return [self._predict_alike(pipeline, [image])[0] for image in images]


def load_on(device: str) -> Callable[[Bundle], Pipeline]:
    """Give the loader for a device; torch is imported when the first image needs it."""

    def load(bundle: Bundle) -> Pipeline:
        from model.pipelines import load_pipeline

        return load_pipeline(bundle, device)

    return load
