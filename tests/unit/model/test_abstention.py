"""Conformal abstention: the promise is kept within each class, however many of each there are."""

from pathlib import Path

import numpy as np
import pytest

from model.abstention import conformal_abstention
from model.bundles import read_bundle
from tests.small_bundle import CALIBRATOR, write_small_bundle

ALPHA = 0.1


def test_the_limit_is_the_exact_order_statistic() -> None:
    scores = [*range(19), *range(100, 109)]
    labels = [1] * 19 + [0] * 9

    limits = conformal_abstention(scores, labels, ALPHA, "made up")

    assert limits.abnormal_from == 1  # floor(0.1 * 20) = 2 of 19: the second lowest
    assert limits.not_abnormal_to == 108  # floor(0.1 * 10) = 1 of 9: the highest


def test_too_few_cases_exclude_nothing() -> None:
    limits = conformal_abstention([1, 2, 3, 4], [1, 1, 0, 0], ALPHA, "made up")

    assert limits.prediction_set(-1e9) == limits.prediction_set(1e9) == (True, True)
    assert limits.abstains(0.0)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_each_class_is_covered_whatever_its_share(share: float) -> None:
    generator = np.random.default_rng(0)
    excluded = np.zeros(2)
    draws, n, tested = 1500, 120, 40
    counted = np.zeros(2)
    for _ in range(draws):
        labels = generator.random(n) < share
        scores = generator.normal(labels * 1.5, 1 + labels)
        limits = conformal_abstention(scores, labels, ALPHA, "made up")
        for label in (0, 1):
            new = generator.normal(label * 1.5, 1 + label, size=tested)
            bound = limits.abnormal_from if label else limits.not_abnormal_to
            if bound is not None:
                excluded[label] += (new < bound).sum() if label else (new > bound).sum()
            counted[label] += tested
    rates = excluded / counted

    assert (rates < ALPHA + 0.006).all()
    assert rates.max() > ALPHA - 0.02  # not by abstaining from everything


def test_a_bundle_abstains_where_both_or_neither_is_left() -> None:
    apart = conformal_abstention(
        np.r_[np.arange(10), 90 + np.arange(10)], [0] * 10 + [1] * 10, 0.1, ""
    )
    mixed = conformal_abstention(
        np.r_[np.arange(20), np.arange(20) + 5], [0] * 20 + [1] * 20, 0.1, ""
    )

    assert apart.prediction_set(50) == (False, False)
    assert apart.abstains(50)
    assert not apart.abstains(95)
    assert mixed.prediction_set(12) == (True, True)
    assert mixed.abstains(12)
    assert mixed.prediction_set(24) == (True, False)


def test_abstention_comes_with_the_bundle_and_back_from_disk(tmp_path: Path) -> None:
    limits = conformal_abstention(
        np.r_[np.arange(20), np.arange(20) + 5], [0] * 20 + [1] * 20, 0.1, ""
    )
    write_small_bundle(tmp_path, conformal=limits)

    bundle = read_bundle(tmp_path)

    assert bundle.conformal == limits
    assert bundle.interpret(12).outcome == "abstained"
    assert bundle.interpret(24).outcome == "flagged"
    assert bundle.interpret(12).probability == CALIBRATOR.calibrate(12)
