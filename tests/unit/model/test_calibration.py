"""Calibrators: rising, honest where they were fitted, and the best of four kinds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from common.errors import TrainingDataError
from model.calibration import (
    METHODS,
    AnyCalibrator,
    BetaCalibrator,
    IsotonicCalibrator,
    LogisticCalibrator,
    cross_fitted_probabilities,
    deal_folds,
    fit_calibrator,
)
from tests.small_bundle import CALIBRATOR


def cases(slope: float, intercept: float, n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    scores = generator.normal(0, 2, size=n)
    chances = 1 / (1 + np.exp(-(slope * scores + intercept)))
    return scores, generator.random(n) < chances


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_a_higher_score_never_has_a_lower_probability(one: float, other: float) -> None:
    low, high = sorted((one, other))

    assert 0 <= CALIBRATOR.calibrate(low) <= CALIBRATOR.calibrate(high) <= 1


def test_a_falling_calibrator_is_refused() -> None:
    with pytest.raises(ValidationError):
        LogisticCalibrator.model_validate({**CALIBRATOR.model_dump(), "slope": -1.0})


def test_scores_that_are_off_by_a_constant_get_platt() -> None:
    scores, labels = cases(0.5, -1.5)

    fitted = fit_calibrator(scores, labels, fitted_on="made up", methods=("temperature", "platt"))

    assert isinstance(fitted, LogisticCalibrator)
    assert fitted.method == "platt"
    assert fitted.slope == pytest.approx(0.5, abs=0.06)
    assert fitted.intercept == pytest.approx(-1.5, abs=0.15)
    assert fitted.prevalence == pytest.approx(labels.mean())


def test_overconfident_scores_are_cooled() -> None:
    scores, labels = cases(0.3, 0.0)

    fitted = fit_calibrator(scores, labels, fitted_on="made up", methods=("temperature", "platt"))

    assert isinstance(fitted, LogisticCalibrator)
    assert fitted.slope == pytest.approx(0.3, abs=0.05)
    assert abs(fitted.intercept) < 0.1


def test_scores_that_separate_the_classes_stay_finite() -> None:
    labels = np.arange(100) >= 50

    fitted = fit_calibrator(np.where(labels, 4.0, -4.0), labels, fitted_on="made up")

    assert 0.9 < fitted.calibrate(4.0) < 1.0


@given(st.floats(0.001, 0.999))
def test_a_probability_leads_back_to_its_score(probability: float) -> None:
    assert CALIBRATOR.calibrate(CALIBRATOR.score_at(probability)) == pytest.approx(probability)


def test_scores_that_are_bent_at_one_end_get_beta() -> None:
    generator = np.random.default_rng(1)
    scores = generator.normal(0, 3, size=6000)
    true = BetaCalibrator(a=0.1, b=1.5, c=-1.0, prevalence=0.5, cases=1, log_loss=0, fitted_on="")
    labels = generator.random(6000) < [true.calibrate(score) for score in scores]

    fitted = fit_calibrator(scores, labels, fitted_on="made up")

    assert isinstance(fitted, BetaCalibrator)
    assert fitted.a == pytest.approx(0.1, abs=0.06)
    assert fitted.b == pytest.approx(1.5, abs=0.15)
    assert set(fitted.losses) == set(METHODS)
    assert fitted.log_loss == min(fitted.losses.values())


def test_scores_that_mean_something_in_steps_alone_get_isotonic() -> None:
    generator = np.random.default_rng(2)
    scores = generator.uniform(-1, 1, size=4000)
    chances = np.select([scores < -0.5, scores < 0.5], [0.02, 0.5], 0.98)

    fitted = fit_calibrator(scores, generator.random(4000) < chances, fitted_on="made up")

    assert isinstance(fitted, IsotonicCalibrator)
    assert [fitted.calibrate(x) for x in (-0.8, 0.0, 0.8)] == pytest.approx(
        [0.02, 0.5, 0.98], abs=0.08
    )
    assert 0 < fitted.calibrate(-1e9) < fitted.calibrate(1e9) < 1


@pytest.mark.parametrize("method", METHODS)
@given(one=st.floats(-1e6, 1e6), other=st.floats(-1e6, 1e6))
def test_no_kind_ever_falls_and_each_survives_json(method: str, one: float, other: float) -> None:
    fitted = FITTED[method]
    low, high = sorted((one, other))
    assert 0 <= fitted.calibrate(low) <= fitted.calibrate(high) <= 1
    kind: TypeAdapter[AnyCalibrator] = TypeAdapter(AnyCalibrator)
    assert kind.validate_json(fitted.model_dump_json()) == fitted


@pytest.mark.parametrize("method", METHODS)
def test_the_score_at_a_probability_is_the_least_that_reaches_it(method: str) -> None:
    fitted = FITTED[method]
    for probability in (0.2, 0.5, 0.8):
        score = fitted.score_at(probability)
        assert fitted.calibrate(score + 1e-9) >= probability - 1e-12
        assert fitted.calibrate(score - 1e-6) < probability


def test_folds_part_no_patient_and_keep_the_share_of_labels() -> None:
    generator = np.random.default_rng(3)
    groups = generator.integers(0, 80, size=300)
    labels = (groups % 4 == 0).astype(float)

    fold = deal_folds(labels, groups, folds=5, seed=0)

    assert all(len(set(fold[groups == group])) == 1 for group in set(groups))
    shares = [labels[fold == number].mean() for number in range(5)]
    assert max(shares) - min(shares) < 0.05


def test_one_class_alone_cannot_be_calibrated() -> None:
    with pytest.raises(TrainingDataError, match="two patients of each class"):
        fit_calibrator([0.0, 1.0, 2.0], [0, 0, 1], fitted_on="made up")


def test_scores_that_fall_with_the_label_cannot_be_calibrated() -> None:
    scores, labels = cases(-2.0, 0.0, n=400)
    with pytest.raises(TrainingDataError, match="do not rise"):
        fit_calibrator(scores, labels, fitted_on="made up")


def test_a_patient_s_own_images_take_no_part_in_its_cross_fitted_probability() -> None:
    scores, labels = cases(1.0, 0.0, n=60)
    groups = np.arange(60) // 2
    labels = labels[groups]
    before = cross_fitted_probabilities(scores, labels, "platt", groups=groups, folds=30)
    changed = scores.copy()
    changed[0] += 5.0
    after = cross_fitted_probabilities(changed, labels, "platt", groups=groups, folds=30)
    assert after[1] == before[1]
    assert after[2] != before[2]


FITTED = {
    method: fit_calibrator(*cases(0.7, -0.4, n=500), fitted_on="made up", methods=(method,))
    for method in METHODS
}
