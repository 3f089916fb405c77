"""Paired areas, bootstrap, Brier parts and net benefit beside their plain definitions."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from model.evaluation.bootstrap import cluster_bootstrap, rows_of_groups
from model.evaluation.brier import decompose_brier
from model.evaluation.decision_curve import decision_curve
from model.evaluation.discrimination import (
    auc,
    auc_interval,
    paired_auc_difference,
    roc_curve,
)


def made_up(n: int = 60, seed: int = 1) -> tuple[NDArray[np.bool_], NDArray, NDArray]:
    generator = np.random.default_rng(seed)
    labels = generator.random(n) < 0.4
    first = np.round(generator.normal(size=n) + 1.2 * labels, 1)  # rounded: with ties
    second = np.round(0.6 * first + generator.normal(size=n), 1)
    return labels, first, second


def brute_force_placements(labels: NDArray, scores: NDArray) -> tuple[list[float], list[float]]:
    """Compare every abnormal with every other case, one pair at a time."""

    def wins(p: float, n: float) -> float:
        return 1.0 if p > n else 0.5 if p == n else 0.0

    positives, negatives = scores[labels], scores[~labels]
    return (
        [float(np.mean([wins(p, n) for n in negatives])) for p in positives],
        [float(np.mean([wins(p, n) for p in positives])) for n in negatives],
    )


def test_paired_delong_is_the_covariance_of_brute_force_placements() -> None:
    labels, first, second = made_up()
    pairs = [brute_force_placements(labels, scores) for scores in (first, second)]
    covariance = sum(
        np.cov([pair[side] for pair in pairs]) / len(pairs[0][side]) for side in (0, 1)
    )
    contrast = np.array([1.0, -1.0])
    error = math.sqrt(contrast @ covariance @ contrast)
    difference = float(np.mean(pairs[0][0]) - np.mean(pairs[1][0]))

    found = paired_auc_difference(labels, first, second)

    assert found.difference == pytest.approx(difference, abs=1e-12)
    assert found.high - found.difference == pytest.approx(1.959963984540054 * error, abs=1e-12)
    assert found.p_value == pytest.approx(math.erfc(abs(difference) / error / math.sqrt(2)))


def test_the_interval_of_one_area_uses_the_brute_force_variance() -> None:
    labels, first, _ = made_up()
    of_positives, of_negatives = brute_force_placements(labels, first)
    area = float(np.mean(of_positives))
    variance = np.var(of_positives, ddof=1) / len(of_positives)
    variance += np.var(of_negatives, ddof=1) / len(of_negatives)

    found = auc_interval(labels, first)

    logits = [math.log(value / (1 - value)) for value in (found.auc, found.high)]
    expected = 1.959963984540054 * math.sqrt(variance) / (area * (1 - area))
    assert found.auc == pytest.approx(area, abs=1e-12)
    assert logits[1] - logits[0] == pytest.approx(expected, abs=1e-9)


def test_a_model_does_not_differ_from_itself_nor_from_its_own_ranks() -> None:
    labels, first, _ = made_up()

    found = paired_auc_difference(labels, first, np.exp(first))

    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_paired_p_values_are_uniform_where_there_is_no_difference() -> None:
    generator = np.random.default_rng(5)
    p_values = []
    for _ in range(400):
        labels = generator.random(80) < 0.5
        shared = generator.normal(size=80) + labels
        models = [shared + generator.normal(size=80) for _ in range(2)]
        p_values.append(paired_auc_difference(labels, *models).p_value)

    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.035)
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.05)


def test_the_area_under_the_curves_corners_is_the_area() -> None:
    labels, first, _ = made_up()

    curve = roc_curve(labels, first)

    area = np.trapezoid(curve.sensitivity, curve.false_positive_rate)
    assert area == pytest.approx(auc(labels, first), abs=1e-12)
    assert (curve.sensitivity[0], curve.sensitivity[-1]) == (0, 1)


def test_copies_of_a_patients_images_do_not_narrow_the_bootstrap() -> None:
    labels, first, _ = made_up(80)
    patients = np.arange(80).astype(str)
    once = cluster_bootstrap(labels, first, groups=patients, statistic=auc, draws=400)

    copies = [np.repeat(values, 4) for values in (labels, first)]
    kept = cluster_bootstrap(*copies, groups=np.repeat(patients, 4), statistic=auc, draws=400)
    ignored = cluster_bootstrap(*copies, groups=np.arange(320), statistic=auc, draws=400)

    assert (kept.low, kept.high) == pytest.approx((once.low, once.high), abs=1e-12)
    assert ignored.high - ignored.low < 0.7 * (once.high - once.low)
    assert once.groups == kept.groups == 80


def test_the_bootstrap_of_single_cases_agrees_with_delong() -> None:
    labels, first, _ = made_up(200)

    found = cluster_bootstrap(labels, first, groups=np.arange(200), statistic=auc, draws=800)

    expected = auc_interval(labels, first)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.015)
    assert found == cluster_bootstrap(
        labels, first, groups=np.arange(200), statistic=auc, draws=800
    )


def test_resamples_without_both_classes_are_drawn_again_or_refused() -> None:
    few = cluster_bootstrap([1, 0, 0], [3, 2, 1], groups=["a", "b", "c"], statistic=auc, draws=50)

    assert few.draws == 50
    with pytest.raises(ValueError, match="too few groups"):
        cluster_bootstrap([1, 1], [3, 2], groups=["a", "b"], statistic=auc, draws=50)


def test_a_case_without_a_group_stands_alone() -> None:
    rows = rows_of_groups(["", "a", "", "a"])

    assert sorted(sorted(one.tolist()) for one in rows) == [[0], [1, 3], [2]]


def test_the_parts_of_a_brier_score_are_murphys_where_bins_hold_one_probability() -> None:
    generator = np.random.default_rng(3)
    said = np.repeat([0.1, 0.3, 0.5, 0.7, 0.9], 40)
    labels = generator.random(200) < said**2
    seen = labels.reshape(5, 40).mean(axis=1)
    means = np.array([0.1, 0.3, 0.5, 0.7, 0.9])

    parts = decompose_brier(labels, said)

    assert parts.reliability == pytest.approx(np.mean((means - seen) ** 2), abs=1e-12)
    assert parts.resolution == pytest.approx(np.mean((seen - labels.mean()) ** 2), abs=1e-12)
    assert parts.within_bins == pytest.approx(0, abs=1e-12)
    assert parts.brier == pytest.approx(
        parts.reliability - parts.resolution + parts.uncertainty + parts.within_bins, abs=1e-12
    )


def test_net_benefit_is_counted_as_vickers_and_elkin_do() -> None:
    labels = np.array([1, 1, 0, 0, 0], dtype=bool)
    probabilities = np.array([0.9, 0.3, 0.6, 0.2, 0.1])

    curve = decision_curve(labels, probabilities, [0.25, 0.5])

    assert curve.net_benefit == pytest.approx([2 / 5 - 1 / 5 / 3, 1 / 5 - 1 / 5])
    assert curve.flag_everyone == pytest.approx([2 / 5 - 3 / 5 / 3, 2 / 5 - 3 / 5])
