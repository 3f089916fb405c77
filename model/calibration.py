"""Turn a score into a probability that means what it says; part of a bundle, no torch.

A calibrator is data: two numbers, and the prevalence among the cases that they were fitted on.
"""

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

ITERATIONS = 100


class Calibrator(BaseModel):
    """``probability = 1 / (1 + exp(-(slope * score + intercept)))``, strictly rising in score.

    ``temperature`` fits the slope alone and leaves the intercept 0; ``platt`` fits both.
    The probability holds where the share of abnormal images is ``prevalence``, and elsewhere not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["temperature", "platt"]
    slope: float = Field(gt=0)
    intercept: float = 0.0
    prevalence: float = Field(gt=0, lt=1)
    cases: int = Field(ge=1)
    log_loss: float = Field(description="by cross-validation on the cases fitted on")
    fitted_on: str

    def calibrate(self, score: float) -> float:
        """Give the probability of a raw score."""
        return logistic(self.slope * score + self.intercept)

    def score_at(self, probability: float) -> float:
        """Give the raw score that is calibrated to ``probability``, in (0, 1)."""
        return (math.log(probability / (1 - probability)) - self.intercept) / self.slope


class _Line(NamedTuple):
    slope: float
    intercept: float


def logistic(value: float) -> float:
    """Give 1 / (1 + exp(-value)) without overflow."""
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    return math.exp(value) / (1 + math.exp(value))


def fit_calibrator(
    scores: ArrayLike, labels: ArrayLike, *, fitted_on: str, folds: int = 10, seed: int = 0
) -> Calibrator:
    """Fit temperature and Platt, keep the one with the lesser cross-validated log loss.

    Source: Guo et al. 2017 (temperature); Platt 1999 with his smoothed targets.
    """
    x = np.asarray(scores, dtype=np.float64)
    y = np.asarray(labels, dtype=np.float64)
    losses = {
        with_intercept: _validated(x, y, with_intercept, folds, seed)
        for with_intercept in (False, True)
    }
    with_intercept = min(losses, key=lambda key: losses[key])
    line = _fit(x, y, with_intercept)
    return Calibrator(
        method="platt" if with_intercept else "temperature",
        slope=line.slope,
        intercept=line.intercept,
        prevalence=float(y.mean()),
        cases=len(y),
        log_loss=losses[with_intercept],
        fitted_on=fitted_on,
    )


def _validated(
    x: NDArray[np.float64], y: NDArray[np.float64], with_intercept: bool, folds: int, seed: int
) -> float:
    """Mean log loss over cases that the fit has not seen; folds keep the share of labels."""
    fold = np.empty(len(y), dtype=int)
    generator = np.random.default_rng(seed)
    for label in (0.0, 1.0):
        rows = generator.permutation(np.flatnonzero(y == label))
        fold[rows] = np.arange(len(rows)) % folds
    total = 0.0
    for held_out in range(folds):
        line = _fit(x[fold != held_out], y[fold != held_out], with_intercept)
        rows = fold == held_out
        total += _log_loss(line.slope * x[rows] + line.intercept, y[rows]).sum()
    return float(total / len(y))


def _log_loss(logit: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.logaddexp(0, logit) - y * logit


def _fit(x: NDArray[np.float64], y: NDArray[np.float64], with_intercept: bool) -> _Line:
    """Fit a logistic line by Newton's method; a falling line is refused by ``Calibrator``."""
    positives = y.sum()
    high = (positives + 1) / (positives + 2)  # Platt's targets keep separable scores finite
    low = 1 / (len(y) - positives + 2)
    target = np.where(y > 0, high, low)
    design = np.stack([x, np.ones_like(x)], axis=1) if with_intercept else x[:, None]
    weights = np.zeros(design.shape[1])
    for _ in range(ITERATIONS):
        p = 1 / (1 + np.exp(-np.clip(design @ weights, -500, 500)))
        gradient = design.T @ (p - target)
        curvature = (design * (p * (1 - p))[:, None]).T @ design
        step = np.linalg.solve(curvature + 1e-9 * np.eye(len(weights)), gradient)
        weights -= step / max(1.0, float(np.abs(step).max()) / 2)
        if np.abs(step).max() < 1e-10:
            break
    return _Line(float(weights[0]), float(weights[1]) if with_intercept else 0.0)
