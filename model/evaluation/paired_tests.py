"""Compare two methods on the same cases: hits, figures, many comparisons at once, and power.

Letters of shapes: N cases.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

ALPHA, POWER = 0.05, 0.8


class PairedHits(NamedTuple):
    """Cases that one method alone hits, and how likely so uneven a split is by chance."""

    only_first: int
    only_second: int
    p: float


def mcnemar_exact(first: ArrayLike, second: ArrayLike) -> PairedHits:
    """Compare hits (N,) of two methods; two-sided. Cases on which they agree say nothing.

    Source: McNemar 1947; exact, as a binomial test of the cases on which they differ.
    """
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    only_first, only_second = int((a & ~b).sum()), int((b & ~a).sum())
    return PairedHits(only_first, only_second, float(_sign_p(only_first, only_first + only_second)))


def wilcoxon_pratt(first: ArrayLike, second: ArrayLike) -> float:
    """Give the two-sided p of the signed-rank test on a figure (N,) of two methods.

    Equal cases keep their ranks, as many misses of both methods need; all equal gives 1.

    Source: Wilcoxon 1945; Pratt 1959 for zeros.
    """
    difference = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    if not difference.any():
        return 1.0
    _, p = stats.wilcoxon(difference, zero_method="pratt", method="approx")
    return float(np.asarray(p))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p for having asked as many questions; in their own order, at most 1.

    Source: Holm 1979.
    """
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    raised = np.maximum.accumulate(np.asarray(p_values, dtype=np.float64)[order] * factors)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(raised, 1.0)
    return adjusted.tolist()


def mcnemar_power(n: int, difference: float, discordant: float, alpha: float = ALPHA) -> float:
    """Give the chance that ``mcnemar_exact`` finds a true difference between two hit rates.

    Args:
        n: independent cases.
        difference: of the hit rates, in [0, 1].
        discordant: share of cases that one method alone hits, at least ``difference``.
        alpha: two-sided.

    Exact: summed over every number of discordant cases and every split of them.
    """
    if not 0 <= difference <= discordant <= 1:
        raise ValueError("no more cases can differ than are discordant")
    if discordant == 0:
        return 0.0
    of_first = (discordant + difference) / (2 * discordant)
    power = 0.0
    for count in range(n + 1):
        hits = np.arange(count + 1)
        rejected = _sign_p(hits, count) <= alpha
        chance = stats.binom.pmf(hits, count, of_first)[rejected].sum()
        power += float(stats.binom.pmf(count, n, discordant) * chance)
    return power


def smallest_difference(
    n: int, discordant: float, alpha: float = ALPHA, power: float = POWER
) -> float:
    """Find the least difference of hit rates that ``n`` cases show with this power.

    ``discordant`` is the share of cases on which two methods are expected to differ; a greater
    difference raises it. To a thousandth, rounded up.

    Raises:
        ValueError: so few cases show no difference at all.
    """
    low, high = 0, 1000
    if mcnemar_power(n, 1.0, 1.0, alpha) < power:
        raise ValueError(f"{n} cases cannot show any difference at this level")
    while high - low > 1:
        middle = (low + high) // 2
        difference = middle / 1000
        enough = mcnemar_power(n, difference, max(difference, discordant), alpha) >= power
        low, high = (low, middle) if enough else (middle, high)
    return high / 1000


def smallest_shift(
    differences: ArrayLike, seed: int = 0, draws: int = 200, power: float = POWER
) -> float:
    """Find the least shift of a figure that ``wilcoxon_pratt`` shows on as many cases.

    By simulation: the differences (N,) that were seen, centred, are drawn anew with replacement
    and shifted. To a thousandth; ``inf`` where even a shift of 1 is not shown.
    """
    seen = np.asarray(differences, dtype=np.float64)
    centred = seen - seen.mean()
    rows = np.random.default_rng(seed).integers(len(seen), size=(draws, len(seen)))
    low, high = 0, 1000
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (low, middle) if _shown(centred[rows] + middle / 1000, power) else (middle, high)
        )
    return high / 1000 if high < 1000 or _shown(centred[rows] + 1.0, power) else float("inf")


def _shown(samples: NDArray[np.float64], power: float) -> bool:
    _, p = stats.wilcoxon(samples, zero_method="pratt", method="approx", axis=1)
    return float(np.mean(np.asarray(p) < ALPHA)) >= power


def _sign_p(hits: NDArray[np.intp] | int, count: int) -> NDArray[np.float64]:
    """Give the two-sided p of ``hits`` heads in ``count`` throws of a fair coin."""
    fewer = np.minimum(hits, count - np.asarray(hits))
    return np.minimum(1.0, 2 * stats.binom.cdf(fewer, count, 0.5))
