"""All figures of one set of cases, as a bundle keeps them."""

import numpy as np
from numpy.typing import NDArray

from model.calibrators import Calibrator
from model.evaluation.discrimination import auc_interval
from model.evaluation.reliability import (
    brier_score,
    calibration_line,
    expected_calibration_error,
)
from model.measured import Evaluation
from model.operating_points import decided, lower_bound


def evaluate(
    name: str,
    scores: NDArray[np.float64],
    labels: NDArray[np.bool_],
    calibrator: Calibrator,
    threshold: float,
    *,
    held_out: bool = True,
    calibrated_on: bool = False,
    note: str = "",
    abstained: NDArray[np.bool_] | None = None,
) -> Evaluation:
    """Measure scores against labels; what needs both classes stays None without them.

    A case without an opinion counts as neither flagged nor cleared.
    """
    probabilities = np.array([calibrator.calibrate(score) for score in scores])
    flagged, cleared = decided(probabilities, threshold, abstained)
    positives, negatives = int(labels.sum()), int((~labels).sum())
    figures: dict[str, float | None] = {"brier": brier_score(labels, probabilities)}
    if positives:
        hits = int((flagged & labels).sum())
        figures["sensitivity"] = hits / positives
        figures["sensitivity_lower_bound"] = lower_bound(hits, positives)
    if negatives:
        passed = int((cleared & ~labels).sum())
        figures["specificity"] = passed / negatives
        figures["specificity_lower_bound"] = lower_bound(passed, negatives)
    if positives and negatives:
        area = auc_interval(labels, scores)
        slope, intercept = calibration_line(labels, probabilities)
        figures |= {
            "auc": area.auc,
            "auc_low": area.low,
            "auc_high": area.high,
            "calibration_slope": slope,
            "calibration_intercept": intercept,
            "expected_calibration_error": expected_calibration_error(labels, probabilities),
        }
    return Evaluation(
        name=name,
        abnormal=positives,
        not_abnormal=negatives,
        held_out=held_out,
        calibrated_on=calibrated_on,
        note=note,
        **figures,  # pyright: ignore[reportArgumentType]  the names are those of the fields
    )
