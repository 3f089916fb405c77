"""Operating points: thresholds that keep their promise, and bounds as printed in tables."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from common.errors import TrainingDataError
from model.operating_points import (
    lower_bound,
    operating_point,
    threshold_for_lower_bound,
    threshold_for_sensitivity,
)


@pytest.mark.parametrize(("successes", "n"), [(1, 10), (9, 10), (10, 10), (72, 80), (199, 200)])
def test_the_lower_bound_is_clopper_and_pearsons(successes: int, n: int) -> None:
    expected = beta.ppf(0.05, successes, n - successes + 1)

    assert lower_bound(successes, n) == pytest.approx(expected, abs=1e-9)


def test_no_success_bounds_nothing() -> None:
    assert lower_bound(0, 10) == 0.0


@given(
    probabilities=st.lists(st.floats(0.01, 0.99), min_size=4, max_size=60),
    wanted=st.floats(0.05, 1.0),
    seed=st.integers(0, 1000),
)
def test_the_threshold_gives_the_wanted_sensitivity_and_the_next_higher_does_not(
    probabilities: list[float], wanted: float, seed: int
) -> None:
    p = np.array(probabilities)
    labels = np.random.default_rng(seed).random(len(p)) < 0.5
    labels[:2] = (True, False)

    threshold = threshold_for_sensitivity(p, labels, wanted)
    point = operating_point("one", threshold, p, labels, "made up")

    assert point.sensitivity.value >= wanted - 1e-9
    higher = p[labels & (p >= threshold)].min()
    assert (p[labels] > higher).mean() < wanted


def test_an_operating_point_counts_each_class_apart() -> None:
    point = operating_point("one", 0.5, [0.1, 0.6, 0.7, 0.2, 0.9], [0, 0, 1, 1, 1], "made up")

    assert (point.sensitivity.value, point.sensitivity.n) == (pytest.approx(2 / 3), 3)
    assert (point.specificity.value, point.specificity.n) == (0.5, 2)
    assert point.flag_rate == pytest.approx(3 / 5)


def test_a_case_without_an_opinion_is_neither_flagged_nor_cleared() -> None:
    p, labels = [0.1, 0.6, 0.7, 0.2, 0.9], [0, 0, 1, 1, 1]

    point = operating_point("one", 0.5, p, labels, "made up", [True, False, True, False, False])

    assert point.sensitivity.value == pytest.approx(1 / 3)  # 0.9 alone
    assert point.specificity.value == 0.0  # 0.1 would have been cleared
    assert point.flag_rate == pytest.approx(2 / 5)
    assert point.abstained == pytest.approx(2 / 5)


def test_a_threshold_makes_up_for_the_abnormal_that_get_no_opinion() -> None:
    p, labels = np.linspace(0.05, 0.95, 20), np.arange(20) >= 10
    silent = np.isin(np.arange(20), [14, 15])

    threshold = threshold_for_sensitivity(p, labels, 0.7, silent)

    assert operating_point("x", threshold, p, labels, "", silent).sensitivity.value == 0.7
    assert threshold < threshold_for_sensitivity(p, labels, 0.7)
    with pytest.raises(TrainingDataError, match=r"2 of 10 abnormal.*at most 0.8"):
        threshold_for_sensitivity(p, labels, 0.9, silent)


def test_a_sensitivity_without_abnormal_cases_is_refused() -> None:
    with pytest.raises(ValueError, match="abnormal"):
        threshold_for_sensitivity([0.1, 0.2], [0, 0], 0.9)


def test_a_threshold_by_the_lower_bound_is_the_greatest_that_keeps_the_promise() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(300) < 120
    p = 1 / (1 + np.exp(-generator.normal(labels * 1.5, 1)))

    threshold = threshold_for_lower_bound(p, labels, 0.9)

    kept = operating_point("x", threshold, p, labels, "made up").sensitivity
    assert kept.lower_bound >= 0.9
    hits = round(kept.value * kept.n)
    assert lower_bound(hits - 1, kept.n) < 0.9
    assert threshold < threshold_for_sensitivity(p, labels, 0.9)


def test_too_few_abnormal_cases_promise_no_lower_bound() -> None:
    with pytest.raises(TrainingDataError, match="at least 29"):
        threshold_for_lower_bound(np.linspace(0.1, 0.9, 40), np.arange(40) >= 20, 0.9)
    assert threshold_for_lower_bound(np.linspace(0.1, 0.9, 40), np.arange(40) >= 11, 0.9) < 0.4
