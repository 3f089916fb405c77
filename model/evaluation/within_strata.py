"""Areas under the curve over pairs of the same stratum: what a stratum gives away counts for none.

Of all pairs of a positive and a negative only those within one stratum are ranked; each counts
alike, so a stratum weighs by its number of pairs.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from model.evaluation.discrimination import Z95, PairedDifference, auc, paired_auc_difference


def auc_within(labels: ArrayLike, scores: ArrayLike, strata: ArrayLike) -> float:
    """Give the chance that a positive scores above a negative of its own stratum.

    Raises:
        ValueError: no stratum has both classes.
    """
    positive, values = np.asarray(labels, dtype=bool), np.asarray(scores, dtype=np.float64)
    return sum(
        weight * auc(positive[rows], values[rows]) for rows, weight in _weighed(positive, strata)
    )


def paired_difference_within(
    labels: ArrayLike, first: ArrayLike, second: ArrayLike, strata: ArrayLike
) -> PairedDifference:
    """Compare two models on the same cases by their areas within strata.

    Strata share no case, so their variances by DeLong add up.

    Raises:
        ValueError: no stratum has both classes.
    """
    positive = np.asarray(labels, dtype=bool)
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    difference, variance = 0.0, 0.0
    for rows, weight in _weighed(positive, strata):
        found = paired_auc_difference(positive[rows], one[rows], other[rows])
        difference += weight * found.difference
        variance += (weight * (found.high - found.low) / (2 * Z95)) ** 2
    if variance == 0:
        return PairedDifference(difference, difference, difference, 1.0 if difference == 0 else 0.0)
    error = math.sqrt(variance)
    p_value = math.erfc(abs(difference) / error / math.sqrt(2))
    return PairedDifference(difference, difference - Z95 * error, difference + Z95 * error, p_value)


def _weighed(
    positive: NDArray[np.bool_], strata: ArrayLike
) -> list[tuple[NDArray[np.intp], float]]:
    """Give the rows of each stratum that has both classes, with its share of all such pairs."""
    of = np.asarray(strata)
    rows = [np.flatnonzero(of == stratum) for stratum in np.unique(of)]
    pairs = [int(positive[one].sum()) * int((~positive[one]).sum()) for one in rows]
    total = sum(pairs)
    if total == 0:
        raise ValueError("an area within strata needs a stratum with cases of both classes")
    return [(one, count / total) for one, count in zip(rows, pairs, strict=True) if count]
