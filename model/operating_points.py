"""Thresholds with what they promise, and on how many cases; part of a bundle, no torch."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
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
    """A probability from which an image is flagged, and what that meant where it was chosen.

    Where the model may abstain, a case without an opinion counts against both: it is neither
    flagged nor cleared. So ``sensitivity`` is the share of all abnormal cases that are flagged,
    ``specificity`` the share of all others that are said to be not flagged, and neither grows by
    giving no opinion. ``abstained`` is the share of cases without one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    threshold: float = Field(gt=0, lt=1, description="probability from which an image is flagged")
    sensitivity: Proportion
    specificity: Proportion
    flag_rate: float = Field(ge=0, le=1, description="among the cases it was chosen on")
    abstained: float = Field(default=0.0, ge=0, le=1, description="among those cases")
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


def threshold_for_sensitivity(
    probabilities: ArrayLike,
    labels: ArrayLike,
    wanted: float,
    abstained: ArrayLike | None = None,
) -> float:
    """Find the greatest threshold at which the sensitivity is at least ``wanted``.

    It lies half way to the next lower probability, so that rounding moves no case over it. Cases
    that are ``abstained`` are never flagged.

    Raises:
        TrainingDataError: too many abnormal cases get no opinion for any threshold to find enough.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    abnormal, silent = np.asarray(labels, dtype=bool), _silent(abstained, len(p))
    if not abnormal.any() or not 0 < wanted <= 1:
        raise ValueError("a sensitivity in (0, 1] needs abnormal cases")
    without = int((abnormal & silent).sum())
    positives = np.sort(p[abnormal & ~silent])
    missed = math.floor(int(abnormal.sum()) * (1 - wanted) + 1e-9) - without
    if missed < 0:
        most = len(positives) / int(abnormal.sum())
        raise TrainingDataError(
            f"{without} of {int(abnormal.sum())} abnormal cases get no opinion, so no threshold "
            f"flags {wanted:.3g} of them, at most {most:.3g}: ask for less, or abstain less"
        )
    edge = float(positives[missed])
    lower = p[(p < edge) & ~silent]
    return (edge + float(lower.max())) / 2 if len(lower) else edge / 2


def threshold_for_lower_bound(
    probabilities: ArrayLike,
    labels: ArrayLike,
    wanted: float,
    abstained: ArrayLike | None = None,
) -> float:
    """Find the greatest threshold at which the sensitivity's lower bound is at least ``wanted``.

    The bound is that of ``lower_bound``, one-sided, 95 %. The threshold is chosen on the same
    cases, so the promise is that of a single look. Cases that are ``abstained`` count as missed.

    Raises:
        TrainingDataError: there are too few abnormal cases, or opinions, to promise that.
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
    return threshold_for_sensitivity(probabilities, labels, needed / positives, abstained)


def operating_point(
    name: str,
    threshold: float,
    probabilities: ArrayLike,
    labels: ArrayLike,
    chosen_on: str,
    abstained: ArrayLike | None = None,
) -> OperatingPoint:
    """Count what a threshold does to cases of known label; see the class for the abstained."""
    abnormal = np.asarray(labels, dtype=bool)
    flagged, cleared = decided(probabilities, threshold, abstained)
    return OperatingPoint(
        name=name,
        threshold=threshold,
        sensitivity=proportion(int((flagged & abnormal).sum()), int(abnormal.sum())),
        specificity=proportion(int((cleared & ~abnormal).sum()), int((~abnormal).sum())),
        flag_rate=float(flagged.mean()),
        abstained=float((~(flagged | cleared)).mean()),
        chosen_on=chosen_on,
    )


def decided(
    probabilities: ArrayLike, threshold: float, abstained: ArrayLike | None = None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Say which cases (n,) a threshold flags and which it clears; the abstained are neither."""
    above = np.asarray(probabilities, dtype=np.float64) >= threshold
    silent = _silent(abstained, len(above))
    return above & ~silent, ~above & ~silent


def _silent(abstained: ArrayLike | None, n: int) -> NDArray[np.bool_]:
    return np.zeros(n, dtype=bool) if abstained is None else np.asarray(abstained, dtype=bool)
