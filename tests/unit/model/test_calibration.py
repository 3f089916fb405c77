"""Calibrators: rising, honest where they were fitted, and the better of two kinds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from model.calibration import Calibrator, fit_calibrator
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
        Calibrator.model_validate({**CALIBRATOR.model_dump(), "slope": -1.0})


def test_scores_that_are_off_by_a_constant_get_platt() -> None:
    scores, labels = cases(0.5, -1.5)

    fitted = fit_calibrator(scores, labels, fitted_on="made up")

    assert fitted.method == "platt"
    assert fitted.slope == pytest.approx(0.5, abs=0.06)
    assert fitted.intercept == pytest.approx(-1.5, abs=0.15)
    assert fitted.prevalence == pytest.approx(labels.mean())


def test_overconfident_scores_are_cooled() -> None:
    scores, labels = cases(0.3, 0.0)

    fitted = fit_calibrator(scores, labels, fitted_on="made up")

    assert fitted.slope == pytest.approx(0.3, abs=0.05)
    assert abs(fitted.intercept) < 0.1


def test_scores_that_separate_the_classes_stay_finite() -> None:
    labels = np.arange(100) >= 50

    fitted = fit_calibrator(np.where(labels, 4.0, -4.0), labels, fitted_on="made up")

    assert 0.9 < fitted.calibrate(4.0) < 1.0


@given(st.floats(0.001, 0.999))
def test_a_probability_leads_back_to_its_score(probability: float) -> None:
    assert CALIBRATOR.calibrate(CALIBRATOR.score_at(probability)) == pytest.approx(probability)
