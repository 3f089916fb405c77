"""Area under the ROC curve, its interval, and the difference of two on the same cases.

Letters of shapes: N cases, T thresholds.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Z95 = 1.959963984540054


class AucInterval(NamedTuple):
    """An area under the ROC curve with its 95 % interval."""

    auc: float
    low: float
    high: float
    positives: int
    negatives: int


class PairedDifference(NamedTuple):
    """The first area minus the second on the same cases, with its 95 % interval.

    ``p_value`` is two-sided, for no difference. Both are on the plain scale: a difference may
    have either sign.
    """

    difference: float
    low: float
    high: float
    p_value: float


class RocCurve(NamedTuple):
    """What each threshold gives, from "flag nothing" to "flag everything"; float (T,) each."""

    false_positive_rate: NDArray[np.float64]
    sensitivity: NDArray[np.float64]


def _midranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank from 1; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _placements(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.float64], ...]:
    """For each positive the share of negatives below it, and for each negative that above it."""
    positive = np.asarray(labels, dtype=bool)
    values = np.asarray(scores, dtype=np.float64)
    p, n = values[positive], values[~positive]
    if len(p) == 0 or len(n) == 0:
        raise ValueError("an area under the curve needs cases of both classes")
    ranks = _midranks(np.concatenate([p, n]))
    of_positives = (ranks[: len(p)] - _midranks(p)) / len(n)
    of_negatives = 1 - (ranks[len(p) :] - _midranks(n)) / len(p)
    return of_positives, of_negatives


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Give the chance that a positive scores above a negative; ties count half."""
    return float(_placements(labels, scores)[0].mean())


def auc_interval(labels: ArrayLike, scores: ArrayLike) -> AucInterval:
    """Give the area with its 95 % interval, built on the logit scale so that it stays in (0, 1).

    Cases count as independent of one another.

    Source: DeLong et al. 1988; Sun and Xu 2014 for the ranks.
    """
    of_positives, of_negatives = _placements(labels, scores)
    area = float(of_positives.mean())
    variance = _variance_of_mean(of_positives) + _variance_of_mean(of_negatives)
    low, high = _logit_interval(area, math.sqrt(variance))
    return AucInterval(area, low, high, len(of_positives), len(of_negatives))


def paired_auc_difference(
    labels: ArrayLike, first: ArrayLike, second: ArrayLike
) -> PairedDifference:
    """Compare two models on the same cases, (N,) each; cases count as independent of one another.

    Two models that place every case alike differ by 0 for certain: p is 1.

    Source: DeLong et al. 1988, eq. 4 to 6; Sun and Xu 2014 for the ranks. A case's placement
    difference has the variance that their covariance matrix gives with the contrast (1, -1).
    """
    parts = zip(_placements(labels, first), _placements(labels, second), strict=True)
    of_positives, of_negatives = (one - other for one, other in parts)
    difference = float(of_positives.mean())
    variance = _variance_of_mean(of_positives) + _variance_of_mean(of_negatives)
    if variance == 0:
        return PairedDifference(difference, difference, difference, 1.0 if difference == 0 else 0.0)
    error = math.sqrt(variance)
    p_value = math.erfc(abs(difference) / error / math.sqrt(2))
    return PairedDifference(difference, difference - Z95 * error, difference + Z95 * error, p_value)


def roc_curve(labels: ArrayLike, scores: ArrayLike) -> RocCurve:
    """Give the curve's corners; equal scores are flagged together."""
    positive = np.asarray(labels, dtype=bool)
    values = np.asarray(scores, dtype=np.float64)
    if positive.all() or not positive.any():
        raise ValueError("a curve needs cases of both classes")
    order = np.argsort(-values, kind="stable")
    last_of_equals = np.append(np.flatnonzero(np.diff(values[order])), len(values) - 1)
    hits = np.cumsum(positive[order])[last_of_equals] / positive.sum()
    alarms = np.cumsum(~positive[order])[last_of_equals] / (~positive).sum()
    return RocCurve(np.concatenate([[0.0], alarms]), np.concatenate([[0.0], hits]))


def _variance_of_mean(values: NDArray[np.float64]) -> float:
    return float(values.var(ddof=1) / len(values)) if len(values) > 1 else 0.25


def _logit_interval(area: float, standard_error: float) -> tuple[float, float]:
    if not 0 < area < 1:
        return area, area
    logit, width = math.log(area / (1 - area)), Z95 * standard_error / (area * (1 - area))
    return 1 / (1 + math.exp(-(logit - width))), 1 / (1 + math.exp(-(logit + width)))
