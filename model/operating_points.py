"""Thresholds with what they promise, and on how many cases; part of a bundle, no torch."""

import math

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field

from common.errors import TrainingDataError

CONFIDENCE = 0.95


class Proportion(BaseModel):
    """A share of ``n`` cases with its one-sided 95 % lower bound (Clopper and Pearson 1934)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float = Field(ge=0, le=1)
    lower_bound: float = Field(ge=0, le=1)
    n: int = Field(ge=1)


class OperatingPoint(BaseModel):
    """A probability from which an image is flagged, and what that meant where it was chosen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    threshold: float = Field(gt=0, lt=1, description="probability from which an image is flagged")
    sensitivity: Proportion
    specificity: Proportion
    flag_rate: float = Field(ge=0, le=1, description="among the cases it was chosen on")
    chosen_on: str


def lower_bound(successes: int, n: int, confidence: float = CONFIDENCE) -> float:
    """Give the one-sided Clopper-Pearson lower bound of a share.

    It is the p at which ``successes`` or more of ``n`` would come with chance 1 - confidence.
    """
    if successes == 0:
        return 0.0
    low, high = 0.0, successes / n
    for _ in range(60):
        middle = (low + high) / 2
        if _upper_tail(successes, n, middle) > 1 - confidence:
            high = middle
        else:
            low = middle
    return low


def _upper_tail(successes: int, n: int, p: float) -> float:
    """Chance of at least this many successes in n trials of chance p."""
    if p <= 0:
        return 0.0
    if p >= 1:
        return 1.0
    logs = [
        math.lgamma(n + 1)
        - math.lgamma(k + 1)
        - math.lgamma(n - k + 1)
        + k * math.log(p)
        + (n - k) * math.log1p(-p)
        for k in range(successes, n + 1)
    ]
    return min(1.0, math.fsum(math.exp(value) for value in logs))


def proportion(successes: int, n: int) -> Proportion:
    """Give a share of n cases with its lower bound."""
    return Proportion(value=successes / n, lower_bound=lower_bound(successes, n), n=n)


def threshold_for_sensitivity(probabilities: ArrayLike, labels: ArrayLike, wanted: float) -> float:
    """Find the greatest threshold at which the sensitivity is at least ``wanted``.

    It lies half way to the next lower probability, so that rounding moves no case over it.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    positives = np.sort(p[np.asarray(labels, dtype=bool)])
    if len(positives) == 0 or not 0 < wanted <= 1:
        raise ValueError("a sensitivity in (0, 1] needs abnormal cases")
    missed = math.floor(len(positives) * (1 - wanted) + 1e-9)
    edge = float(positives[missed])
    lower = p[p < edge]
    return (edge + float(lower.max())) / 2 if len(lower) else edge / 2


def threshold_for_lower_bound(probabilities: ArrayLike, labels: ArrayLike, wanted: float) -> float:
    """Find the greatest threshold at which the sensitivity's lower bound is at least ``wanted``.

    The bound is that of ``lower_bound``, one-sided, 95 %. The threshold is chosen on the same
    cases, so the promise is that of a single look.

    Raises:
        TrainingDataError: there are too few abnormal cases to promise that.
    """
    positives = int(np.asarray(labels, dtype=bool).sum())
    if not 0 < wanted < 1:
        raise ValueError("a sensitivity to promise lies in (0, 1)")
    needed = next((k for k in range(positives + 1) if lower_bound(k, positives) >= wanted), None)
    if not positives or needed is None:
        least = math.ceil(math.log(1 - CONFIDENCE) / math.log(wanted))
        raise TrainingDataError(
            f"{positives} abnormal cases cannot promise a sensitivity of {wanted:g}: "
            f"it takes at least {least}, all of them flagged"
        )
    return threshold_for_sensitivity(probabilities, labels, needed / positives)


def operating_point(
    name: str, threshold: float, probabilities: ArrayLike, labels: ArrayLike, chosen_on: str
) -> OperatingPoint:
    """Count what a threshold does to cases of known label."""
    flagged = np.asarray(probabilities, dtype=np.float64) >= threshold
    abnormal = np.asarray(labels, dtype=bool)
    return OperatingPoint(
        name=name,
        threshold=threshold,
        sensitivity=proportion(int((flagged & abnormal).sum()), int(abnormal.sum())),
        specificity=proportion(int((~flagged & ~abnormal).sum()), int((~abnormal).sum())),
        flag_rate=float(flagged.mean()),
        chosen_on=chosen_on,
    )
