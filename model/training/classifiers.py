"""Classifiers of embeddings as plain arrays: what they answer needs no library that fitted them.

Letters of shapes: N cases, D features, M cases kept from training, T trees, L nodes of all trees,
H hidden units. Every score rises with the chance of abnormal; calibration makes it a probability.
"""

import json
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from common.errors import TrainingDataError

ROWS_AT_ONCE = 1024
KIND = "kind"

Floats = NDArray[np.float64]
Arrays = dict[str, NDArray[Any]]


class Classifier(Protocol):
    """A fitted classifier."""

    kind: ClassVar[str]
    arrays: Arrays

    def score(self, features: NDArray[np.float32]) -> Floats:
        """Give the raw scores of float32 (N, D): float64 (N,)."""
        ...


class _OfArrays(BaseModel):
    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    arrays: Arrays

    def _standardised(self, features: NDArray[np.float32]) -> Floats:
        return (features.astype(np.float64) - self.arrays["mean"]) / self.arrays["scale"]


class LinearClassifier(_OfArrays):
    """``x @ weight + bias`` on standardised features: logistic regression or a linear SVM.

    Shapes: mean, scale, weight (D,); bias (1,).
    """

    kind: ClassVar[str] = "linear"

    def score(self, features: NDArray[np.float32]) -> Floats:
        """Give the raw scores; see ``Classifier``."""
        return self._standardised(features) @ self.arrays["weight"] + self.arrays["bias"][0]


class RbfClassifier(_OfArrays):
    """A support vector machine with a Gaussian kernel on standardised features.

    Shapes: mean, scale (D,); vectors (M, D); dual (M,); bias (1,); gamma (1,).
    """

    kind: ClassVar[str] = "rbf"

    def score(self, features: NDArray[np.float32]) -> Floats:
        """Give the raw scores; see ``Classifier``."""
        vectors, dual = self.arrays["vectors"], self.arrays["dual"]
        gamma, bias = self.arrays["gamma"][0], self.arrays["bias"][0]
        return np.concatenate(
            [
                np.exp(-gamma * _squared_distances(some, vectors)) @ dual + bias
                for some in _some_at_once(self._standardised(features))
            ]
        )


class NeighbourClassifier(_OfArrays):
    """The share of abnormal among the k nearest training cases, as smoothed log odds.

    Shapes: mean, scale (D,); vectors (M, D); labels (M,); neighbours (1,); by_distance (1,), 1 if
    each neighbour counts by the inverse of its distance.
    """

    kind: ClassVar[str] = "neighbours"

    def share(self, features: NDArray[np.float32]) -> Floats:
        """Give the weighted share of abnormal neighbours, (N,)."""
        shares = [self._share(some) for some in _some_at_once(self._standardised(features))]
        return np.concatenate(shares)

    def score(self, features: NDArray[np.float32]) -> Floats:
        """Give the raw scores; see ``Classifier``."""
        return _smoothed_log_odds(self.share(features), int(self.arrays["neighbours"][0]))

    def _share(self, some: Floats) -> Floats:
        distances = np.sqrt(_squared_distances(some, self.arrays["vectors"]))
        k = int(self.arrays["neighbours"][0])
        nearest = np.argpartition(distances, k - 1, axis=1)[:, :k]
        distance = np.take_along_axis(distances, nearest, axis=1)
        weight = np.ones_like(distance)
        if self.arrays["by_distance"][0]:
            at_it = distance == 0
            weight = np.where(
                at_it.any(axis=1, keepdims=True), at_it, 1 / np.maximum(distance, 1e-300)
            )
        votes = self.arrays["labels"][nearest] * weight
        return votes.sum(axis=1) / weight.sum(axis=1)


class ForestClassifier(_OfArrays):
    """The mean over trees of the share of abnormal in the leaf, as smoothed log odds.

    Features are not standardised: a tree asks for order alone.

    Shapes: roots (T,); feature, left, right (L,), left is -1 in a leaf; threshold (L,), goes left
    where the feature is at most that; abnormal (L,), the share of abnormal.
    """

    kind: ClassVar[str] = "forest"

    def share(self, features: NDArray[np.float32]) -> Floats:
        """Give the mean share of abnormal, (N,)."""
        arrays, roots = self.arrays, self.arrays["roots"]
        x = features.astype(np.float32)
        total = np.zeros(len(x))
        for root in roots:
            node = np.full(len(x), root)
            moving = np.flatnonzero(arrays["left"][node] >= 0)
            while len(moving):
                at = node[moving]
                left = x[moving, arrays["feature"][at]] <= arrays["threshold"][at]
                node[moving] = np.where(left, arrays["left"][at], arrays["right"][at])
                moving = moving[arrays["left"][node[moving]] >= 0]
            total += arrays["abnormal"][node]
        return total / len(roots)

    def score(self, features: NDArray[np.float32]) -> Floats:
        """Give the raw scores; see ``Classifier``."""
        return _smoothed_log_odds(self.share(features), len(self.arrays["roots"]))


class PerceptronClassifier(_OfArrays):
    """One hidden layer of rectified units on standardised features.

    Shapes: mean, scale (D,); hidden_weight (D, H); hidden_bias, weight (H,); bias (1,).
    """

    kind: ClassVar[str] = "perceptron"

    def score(self, features: NDArray[np.float32]) -> Floats:
        """Give the raw scores; see ``Classifier``."""
        arrays = self.arrays
        hidden = self._standardised(features) @ arrays["hidden_weight"] + arrays["hidden_bias"]
        return np.maximum(hidden, 0) @ arrays["weight"] + arrays["bias"][0]


KINDS: dict[str, type[_OfArrays]] = {
    one.kind: one
    for one in (
        LinearClassifier,
        RbfClassifier,
        NeighbourClassifier,
        ForestClassifier,
        PerceptronClassifier,
    )
}


def write_classifier(path: Path, classifier: Classifier, about: dict[str, str]) -> None:
    """Write a classifier as safetensors; ``about`` goes into its header."""
    arrays = {name: np.ascontiguousarray(array) for name, array in classifier.arrays.items()}
    header = json.dumps({KIND: classifier.kind, **about}, sort_keys=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(arrays, path, metadata={"classifier": header})


def read_classifier(path: Path) -> tuple[Classifier, dict[str, str]]:
    """Read a classifier and what was said about it.

    Raises:
        TrainingDataError: the file holds no classifier of ours.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {})["classifier"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        found: Any = KINDS[about.pop(KIND)](arrays=arrays)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise TrainingDataError(f"{path} holds no classifier: {error}") from error
    return found, about


def _some_at_once(x: Floats) -> list[Floats]:
    return [x[start : start + ROWS_AT_ONCE] for start in range(0, max(len(x), 1), ROWS_AT_ONCE)]


def _squared_distances(x: Floats, y: Floats) -> Floats:
    squared = (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T
    return np.maximum(squared, 0)


def _smoothed_log_odds(share: Floats, votes: int) -> Floats:
    """Keep the order of shares and stay finite: half a vote is added to either side."""
    smoothed = (share * votes + 0.5) / (votes + 1)
    return np.log(smoothed / (1 - smoothed))
