"""Paired tests give the numbers of the textbooks, and power that simulation confirms."""

import math

import numpy as np
import pytest
from scipy import stats

from model.evaluation.paired_tests import (
    holm,
    mcnemar_exact,
    mcnemar_power,
    smallest_difference,
    smallest_shift,
    wilcoxon_pratt,
)


def hits(both: int, first: int, second: int, none: int) -> tuple[list[bool], list[bool]]:
    counts = (both, first, second, none)
    pairs = ((True, True), (True, False), (False, True), (False, False))
    rows = [pair for pair, count in zip(pairs, counts, strict=True) for _ in range(count)]
    return [row[0] for row in rows], [row[1] for row in rows]


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        (121, 59, 4.434444e-06),  # the sign test of 59 in 180
        (6, 0, 2 / 64),
        (5, 0, 2 / 32),
        (4, 4, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemar_is_the_sign_test_of_the_cases_that_differ(
    first: int, second: int, p: float
) -> None:
    compared = mcnemar_exact(*hits(30, first, second, 20))

    assert (compared.only_first, compared.only_second) == (first, second)
    assert compared.p == pytest.approx(p, rel=1e-5)
    if first + second:
        assert compared.p == pytest.approx(stats.binomtest(first, first + second).pvalue)


def test_holm_gives_the_textbook_example_in_its_own_order() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_the_signed_rank_test_says_nothing_of_equal_methods_and_sees_a_steady_gain() -> None:
    values = np.random.default_rng(0).random(30)

    assert wilcoxon_pratt(values, values) == 1.0
    assert wilcoxon_pratt(values + 0.1, values) < 1e-5
    assert wilcoxon_pratt(values, values + 0.1) == wilcoxon_pratt(values + 0.1, values)


def test_cases_missed_by_both_methods_keep_their_weight() -> None:
    gain = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]

    assert wilcoxon_pratt(gain + [0.0] * 40, [0.0] * 46) > wilcoxon_pratt(gain, [0.0] * 6) / 2
    assert wilcoxon_pratt(gain + [0.0] * 40, [0.0] * 46) < 0.05


def test_the_power_of_mcnemar_is_what_simulation_finds() -> None:
    generator = np.random.default_rng(0)
    studies = generator.multinomial(54, [0.35, 0.1, 0.55], size=4000)
    kinds, counts = np.unique(studies[:, :2], axis=0, return_counts=True)
    found = np.array([stats.binomtest(a, a + b).pvalue <= 0.05 for a, b in kinds], dtype=bool)

    assert mcnemar_power(54, 0.25, 0.45) == pytest.approx(counts[found].sum() / 4000, abs=0.02)


@pytest.mark.parametrize("discordant", [0.0, 0.2, 0.4])
def test_the_smallest_difference_is_the_first_that_has_the_power(discordant: float) -> None:
    least = smallest_difference(54, discordant)

    below = least - 0.001
    assert mcnemar_power(54, least, max(least, discordant)) >= 0.8
    assert mcnemar_power(54, below, max(below, discordant)) < 0.8


def test_more_cases_show_a_smaller_difference_and_five_show_none() -> None:
    assert smallest_difference(120, 0.3) < smallest_difference(54, 0.3)
    with pytest.raises(ValueError, match="5 cases"):
        smallest_difference(5, 0.3)


def test_a_shift_that_noise_would_hide_is_not_promised() -> None:
    generator = np.random.default_rng(0)
    quiet = smallest_shift(generator.normal(0, 0.05, 54), draws=60)
    loud = smallest_shift(generator.normal(0, 0.2, 54), draws=60)

    assert 0 < quiet < loud < 1
    # A t test on 54 cases shows 0.39 standard deviations with a power of 80 %.
    assert quiet == pytest.approx(0.39 * 0.05, rel=0.35)
    assert not math.isinf(loud)
