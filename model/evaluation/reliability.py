"""Do probabilities mean what they say? Error, bins and the line between said and seen.

Letters of shapes: N cases.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 5
SIMULATIONS = 2000
CELLS_AT_ONCE = 2_000_000


class ReliabilityBin(NamedTuple):
    """Cases of about the same probability: what was said, what was seen, how many."""

    mean_probability: float
    observed: float
    n: int


class SimulatedError(NamedTuple):
    """The errors that perfect probabilities show by chance: their mean and where 95 % lie."""

    mean: float
    low: float
    high: float


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


def ece_under_perfect_calibration(
    probabilities: ArrayLike, bins: int = BINS, *, simulations: int = SIMULATIONS, seed: int = 0
) -> SimulatedError:
    """Simulate the expected calibration error of these very probabilities, were they true.

    With few cases it is far from 0: an error inside the range speaks for no miscalibration.

    Source: Broecker and Smith 2007 (consistency resampling), with the probabilities kept.
    """
    p = np.sort(np.asarray(probabilities, dtype=np.float64))
    generator = np.random.default_rng(seed)
    starts = np.cumsum([0] + [len(rows) for rows in np.array_split(p, min(bins, len(p)))])[:-1]
    said = np.add.reduceat(p, starts)
    errors: list[float] = []
    while len(errors) < simulations:
        count = min(simulations - len(errors), max(1, CELLS_AT_ONCE // len(p)))
        labels = generator.random((count, len(p))) < p
        seen = np.add.reduceat(labels, starts, axis=1, dtype=np.float64)
        errors.extend(np.abs(seen - said).sum(axis=1) / len(p))
    low, high = np.quantile(errors, [0.025, 0.975])
    return SimulatedError(float(np.mean(errors)), float(low), float(high))


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
