"""Intervals that let patients, not images, be the unit of chance.

Letters of shapes: N cases, G groups.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

DRAWS = 2000
ATTEMPTS_PER_DRAW = 10


class BootstrapInterval(NamedTuple):
    """A statistic on all cases, with the 2.5 % and 97.5 % quantiles over resampled groups.

    ``draws`` counts the resamples that had a value: a draw without both classes has no area.
    """

    value: float
    low: float
    high: float
    groups: int
    draws: int


def cluster_bootstrap(
    *values: ArrayLike,
    groups: ArrayLike,
    statistic: Callable[..., float],
    seed: int = 0,
    draws: int = DRAWS,
) -> BootstrapInterval:
    """Resample whole groups with replacement and look how far the statistic moves.

    Args:
        values: arrays (N, ...), resampled by the same cases and handed to ``statistic`` in order.
        groups: (N,), whatever must stay together: patients.
        statistic: raises ValueError, or gives NaN, where a resample has no value; such a
            resample is drawn again.
        seed: the same seed gives the same interval.
        draws: resamples.

    Raises:
        ValueError: hardly any resample has a value.

    Source: Davison and Hinkley 1997, section 3.8 (resampling of clusters), percentile interval.
    """
    arrays = [np.asarray(value) for value in values]
    rows_of = rows_of_groups(groups)
    generator = np.random.default_rng(seed)
    drawn: list[float] = []
    for _ in range(draws * ATTEMPTS_PER_DRAW):
        chosen = generator.integers(len(rows_of), size=len(rows_of))
        rows = np.concatenate([rows_of[number] for number in chosen])
        try:
            value = float(statistic(*(array[rows] for array in arrays)))
        except ValueError:
            continue
        if np.isfinite(value):
            drawn.append(value)
        if len(drawn) == draws:
            break
    if len(drawn) < draws:
        raise ValueError(f"only {len(drawn)} of {draws} resamples have a value: too few groups")
    low, high = np.quantile(drawn, [0.025, 0.975])
    value = float(statistic(*arrays))
    return BootstrapInterval(value, float(low), float(high), len(rows_of), len(drawn))


def rows_of_groups(groups: ArrayLike) -> list[NDArray[np.intp]]:
    """Number the rows of each of G groups; a group without a name is one of its own."""
    names = np.asarray(groups).astype(str)
    alone = np.char.add("\0", np.arange(len(names)).astype(str))
    _, member = np.unique(np.where(names == "", alone, names), return_inverse=True)
    order = np.argsort(member, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(member[order])) + 1)
