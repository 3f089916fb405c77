"""Measure models on the cases that they share, and put the figures into a report."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from model.evaluation.bootstrap import BootstrapInterval, cluster_bootstrap
from model.evaluation.brier import decompose_brier
from model.evaluation.decision_curve import decision_curve
from model.evaluation.discrimination import (
    PairedDifference,
    auc,
    auc_interval,
    paired_auc_difference,
    roc_curve,
)
from model.evaluation.paired_tests import holm
from model.evaluation.prediction_table import PredictionTable
from model.evaluation.reliability import (
    ReliabilityBin,
    brier_score,
    calibration_line,
    ece_under_perfect_calibration,
    expected_calibration_error,
    reliability_diagram,
)
from model.evaluation.report import (
    AtThreshold,
    CalibrationFigures,
    Comparison,
    Curve,
    Figures,
    Interval,
    ModelReport,
    Seen,
    Stratum,
    Threshold,
)
from model.evaluation.strata import strata_of
from model.operating_points import decided, proportion

CORNERS = 400


def measure_model(
    table: PredictionTable,
    thresholds: Sequence[Threshold] = (),
    columns: Sequence[str] = (),
    *,
    seed: int = 0,
) -> ModelReport:
    """Measure one model on all cases of its table, then by each value of these columns."""
    strata = [
        Stratum(column=column, value=value, figures=measure(table.take(mask), thresholds))
        for column in columns
        for value, mask in strata_of(table, column).items()
    ]
    overall = measure(table, thresholds)
    changes: dict[str, object] = {}
    if overall.auc is not None:
        drawn = cluster_bootstrap(
            table.labels, table.scores, groups=table.groups, statistic=auc, seed=seed
        )
        roc = roc_curve(table.labels, table.scores)
        changes["auc_bootstrap"] = _interval(drawn)
        changes["roc"] = _curve(roc.false_positive_rate, roc.sensitivity)
    if table.probabilities is not None:
        benefit = decision_curve(table.labels, table.probabilities)
        changes["net_benefit"] = _curve(benefit.threshold, benefit.net_benefit)
    overall = overall.model_copy(update=changes)
    return ModelReport(name=table.name, sha256=table.sha256, overall=overall, strata=tuple(strata))


def measure(table: PredictionTable, thresholds: Sequence[Threshold] = ()) -> Figures:
    """Measure what these cases allow: an area needs both classes, the rest probabilities."""
    y, p = table.labels, table.probabilities
    area = auc_interval(y, table.scores) if y.any() and not y.all() else None
    return Figures(
        cases=len(y),
        abnormal=int(y.sum()),
        auc=None if area is None else Interval(value=area.auc, low=area.low, high=area.high),
        calibration=None if p is None or not len(y) else _calibration(table, p),
        operating_points=()
        if p is None
        else tuple(at_threshold(y, p, threshold, table.abstained) for threshold in thresholds),
    )


def at_threshold(
    labels: NDArray[np.bool_],
    probabilities: NDArray[np.float64],
    threshold: Threshold,
    abstained: NDArray[np.bool_] | None = None,
) -> AtThreshold:
    """Count what a threshold does to cases of known label; the abstained count against it."""
    flagged, cleared = decided(probabilities, threshold.probability, abstained)
    abnormal, other = int(labels.sum()), int((~labels).sum())
    return AtThreshold(
        name=threshold.name,
        threshold=threshold.probability,
        sensitivity=proportion(int((flagged & labels).sum()), abnormal) if abnormal else None,
        specificity=proportion(int((cleared & ~labels).sum()), other) if other else None,
        flag_rate=float(flagged.mean()),
        abstained=float((~(flagged | cleared)).mean()),
    )


def compare(tables: Sequence[PredictionTable], *, seed: int = 0) -> tuple[Comparison, ...]:
    """Compare every two models; the tables hold the same cases in the same order.

    Source: Holm 1979 for p values over several comparisons.
    """
    labels, groups = tables[0].labels, tables[0].groups
    pairs = list(itertools.combinations(tables, 2))
    if labels.all() or not labels.any() or not pairs:
        return ()
    found = [paired_auc_difference(labels, one.scores, other.scores) for one, other in pairs]
    adjusted = holm([one.p_value for one in found])
    return tuple(
        Comparison(
            first=one.name,
            second=other.name,
            difference=_interval(difference),
            p_value=difference.p_value,
            p_holm=float(p_holm),
            bootstrap=_interval(
                cluster_bootstrap(
                    labels,
                    one.scores,
                    other.scores,
                    groups=groups,
                    statistic=_auc_difference,
                    seed=seed,
                )
            ),
        )
        for (one, other), difference, p_holm in zip(pairs, found, adjusted, strict=True)
    )


def flag_everyone(table: PredictionTable) -> Curve:
    """Give the net benefit of flagging everyone, to draw beside the models'."""
    benefit = decision_curve(table.labels, np.zeros(len(table.labels)))
    return _curve(benefit.threshold, benefit.flag_everyone)


def _auc_difference(labels: NDArray, first: NDArray, second: NDArray) -> float:
    return auc(labels, first) - auc(labels, second)


def _calibration(table: PredictionTable, p: NDArray[np.float64]) -> CalibrationFigures:
    y = table.labels
    parts = decompose_brier(y, p)
    both = bool(y.any() and not y.all())
    slope, intercept = calibration_line(y, p) if both else (None, None)
    by_chance = ece_under_perfect_calibration(p)
    spread = _standard_error((p - y) ** 2)
    return CalibrationFigures(
        brier=Interval(
            value=brier_score(y, p), low=max(0, parts.brier - spread), high=parts.brier + spread
        ),
        brier_reliability=parts.reliability,
        brier_resolution=parts.resolution,
        brier_uncertainty=parts.uncertainty,
        brier_within_bins=parts.within_bins,
        slope=slope,
        intercept=intercept,
        expected_error=expected_calibration_error(y, p),
        expected_error_mean=by_chance.mean,
        expected_error_low=by_chance.low,
        expected_error_high=by_chance.high,
        mean_probability=float(p.mean()),
        bins=tuple(_seen(one) for one in reliability_diagram(y, p)),
    )


def _standard_error(values: NDArray[np.float64]) -> float:
    """Give half the width of a 95 % interval of a mean."""
    return 1.96 * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def _seen(one: ReliabilityBin) -> Seen:
    bounds = binomtest(round(one.observed * one.n), one.n).proportion_ci(method="wilson")
    return Seen(**one._asdict(), low=float(bounds.low), high=float(bounds.high))


def _interval(found: BootstrapInterval | PairedDifference) -> Interval:
    value = found.value if isinstance(found, BootstrapInterval) else found.difference
    return Interval(value=value, low=found.low, high=found.high)


def _curve(x: NDArray[np.float64], y: NDArray[np.float64]) -> Curve:
    """Keep at most so many corners: more would not be seen."""
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), CORNERS)).round().astype(int))
    return Curve(x=tuple(x[kept].tolist()), y=tuple(y[kept].tolist()))
