"""Do probabilities mean what they say? Error, bins and the line between said and seen.

Letters of shapes: N cases.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 5


class ReliabilityBin(NamedTuple):
    """Cases of about the same probability: what was said, what was seen, how many."""

    mean_probability: float
    observed: float
    n: int


def brier_score(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Give the mean squared distance between probability and truth; 0 is best."""
    p, y = _arrays(probabilities, labels)
    return float(np.mean((p - y) ** 2))


def reliability_diagram(
    labels: ArrayLike, probabilities: ArrayLike, bins: int = BINS
) -> list[ReliabilityBin]:
    """Sort cases by probability into bins of equal size, least first."""
    p, y = _arrays(probabilities, labels)
    order = np.argsort(p, kind="stable")
    return [
        ReliabilityBin(float(p[rows].mean()), float(y[rows].mean()), len(rows))
        for rows in np.array_split(order, bins)
        if len(rows)
    ]


def expected_calibration_error(
    labels: ArrayLike, probabilities: ArrayLike, bins: int = BINS
) -> float:
    """Give the mean distance between said and seen over bins of equal size."""
    diagram = reliability_diagram(labels, probabilities, bins)
    total = sum(one.n for one in diagram)
    return sum(abs(one.mean_probability - one.observed) * one.n for one in diagram) / total


def calibration_line(labels: ArrayLike, probabilities: ArrayLike) -> tuple[float, float]:
    """Fit seen on said, both as log odds: slope and intercept; (1, 0) is perfect.

    Source: Cox 1958; slope and intercept are fitted together.
    """
    p, y = _arrays(probabilities, labels)
    p = np.clip(p, 1e-9, 1 - 1e-9)
    design = np.stack([np.log(p / (1 - p)), np.ones_like(p)], axis=1)
    weights = np.array([1.0, 0.0])
    for _ in range(100):
        fitted = 1 / (1 + np.exp(-np.clip(design @ weights, -500, 500)))
        gradient = design.T @ (fitted - y)
        curvature = (design * (fitted * (1 - fitted))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights -= step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-10:
            break
    return float(weights[0]), float(weights[1])


def _arrays(
    probabilities: ArrayLike, labels: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.float64)
