"""Figures of merit beside other people's formulas."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from model.evaluation.discrimination import auc, auc_interval
from model.evaluation.evaluate import evaluate
from model.evaluation.localisation import points_at_a_box
from model.evaluation.reliability import (
    brier_score,
    calibration_line,
    ece_under_perfect_calibration,
    expected_calibration_error,
    reliability_diagram,
)
from model.evaluation.source_readability import source_readability
from tests.small_bundle import CALIBRATOR


def made_up(n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    labels = generator.random(n) < 0.4
    return labels, np.round(generator.normal(size=n) + labels, 1)  # rounded: with ties


def test_the_area_is_that_of_scikit_learn_with_ties() -> None:
    labels, scores = made_up()

    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_the_interval_is_as_wide_as_the_bootstraps() -> None:
    labels, scores = made_up()
    generator = np.random.default_rng(2)
    again = []
    for _ in range(1000):
        rows = generator.integers(len(labels), size=len(labels))
        again.append(auc(labels[rows], scores[rows]))

    interval = auc_interval(labels, scores)

    low, high = np.quantile(again, [0.025, 0.975])
    assert interval.low == pytest.approx(low, abs=0.01)
    assert interval.high == pytest.approx(high, abs=0.01)


def test_an_area_needs_both_classes() -> None:
    with pytest.raises(ValueError, match="both classes"):
        auc([1, 1], [0.2, 0.3])


def test_probabilities_that_are_true_have_slope_one_and_little_error() -> None:
    generator = np.random.default_rng(3)
    probabilities = generator.random(20_000)
    labels = generator.random(20_000) < probabilities

    slope, intercept = calibration_line(labels, probabilities)

    assert slope == pytest.approx(1, abs=0.05)
    assert intercept == pytest.approx(0, abs=0.05)
    assert expected_calibration_error(labels, probabilities) < 0.02


def test_the_simulated_error_is_that_of_labels_drawn_from_the_probabilities() -> None:
    generator = np.random.default_rng(3)
    probabilities = generator.random(150)
    errors = [
        expected_calibration_error(generator.random(150) < probabilities, probabilities)
        for _ in range(1500)
    ]

    simulated = ece_under_perfect_calibration(probabilities)

    assert simulated.mean == pytest.approx(np.mean(errors), abs=0.002)
    assert simulated.low == pytest.approx(np.quantile(errors, 0.025), abs=0.004)
    assert simulated.high == pytest.approx(np.quantile(errors, 0.975), abs=0.006)
    assert simulated.low > 0.015


def test_overconfident_probabilities_have_a_slope_below_one() -> None:
    generator = np.random.default_rng(3)
    logits = generator.normal(size=20_000)
    labels = generator.random(20_000) < 1 / (1 + np.exp(-logits))

    slope, _ = calibration_line(labels, 1 / (1 + np.exp(-3 * logits)))

    assert slope == pytest.approx(1 / 3, abs=0.05)
    assert brier_score(labels, labels) == 0


def test_bins_hold_the_same_number_of_cases() -> None:
    labels, scores = made_up(52)

    assert [one.n for one in reliability_diagram(labels, scores)] == [11, 11, 10, 10, 10]


def test_one_class_alone_has_no_area_but_a_specificity() -> None:
    row = evaluate("normals", np.array([-3.0, 3.0]), np.array([False, False]), CALIBRATOR, 0.5)

    assert (row.auc, row.sensitivity, row.specificity) == (None, None, 0.5)


def test_a_heatmap_points_where_its_hottest_cell_is() -> None:
    heatmap = np.zeros((4, 4))
    heatmap[1, 2] = 1  # centre at x = 0.625, y = 0.375

    assert points_at_a_box(heatmap, [(0.6, 0.3, 0.1, 0.1)], tolerance=0)
    assert points_at_a_box(heatmap, [(0.72, 0.3, 0.1, 0.1)])
    assert not points_at_a_box(heatmap, [(0.72, 0.3, 0.1, 0.1)], tolerance=0)
    assert not points_at_a_box(heatmap, [])


def test_a_source_written_into_the_embedding_is_read_from_it() -> None:
    generator = np.random.default_rng(4)
    source = generator.random(200) < 0.5
    embeddings = generator.normal(size=(200, 8)).astype(np.float32)
    scores = generator.normal(size=200)
    hidden = source_readability(embeddings, scores, source)
    embeddings[:, 3] += 4 * source

    shown = source_readability(embeddings, scores, source)

    assert hidden.from_embedding < 0.65
    assert shown.from_embedding > 0.95
    assert shown.from_score < 0.65
