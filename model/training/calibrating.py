"""Calibrate a bundle on val: calibrator, operating points, abstention, and what it changed.

Letters of shapes: N cases.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from model.abstention import ConformalAbstention, conformal_abstention
from model.bundles import Bundle
from model.calibration import METHODS, cross_fitted_probabilities, fit_calibrator
from model.calibrators import AnyCalibrator, logistic
from model.evaluation.discrimination import auc_interval
from model.evaluation.prediction_table import PredictionTable
from model.evaluation.reliability import (
    brier_score,
    calibration_line,
    ece_under_perfect_calibration,
    expected_calibration_error,
)
from model.measured import Evaluation, Metrics
from model.operating_points import (
    OperatingPoint,
    operating_point,
    threshold_for_lower_bound,
    threshold_for_sensitivity,
)
from model.training.bundle_versions import write_new_version
from model.training.feature_store import as_json, write_whole
from model.training.run_record import write_run_record

REPORT = "calibration.json"


class CalibrationFigures(BaseModel):
    """How far probabilities can be taken at their word; ``passes`` is an ECE not above the
    range of chance.

    ``ece_low`` and ``ece_high`` hold 95 % of the errors that these very probabilities, were they
    true, would show on as many cases: 5 bins of equal size.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: str
    cases: int
    abnormal: int
    slope: float
    intercept: float
    brier: float
    ece: float
    ece_expected: float
    ece_low: float
    ece_high: float
    passes: bool


class Abstaining(BaseModel):
    """What the limits do to the cases that set them: shares within all, and of each class."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limits: ConformalAbstention
    abstained: float
    abstained_abnormal: float
    abstained_not_abnormal: float


class CalibrationConfig(BaseModel):
    """What was asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sensitivities: dict[str, float]
    by_lower_bound: bool = False
    default: str = "default"
    abstain_alpha: float | None = None
    methods: tuple[str, ...] = METHODS
    seed: int = 0


class CalibrationReport(BaseModel):
    """``calibration.json``: before and after, each on the same cases of val.

    ``after`` is cross-fitted: each probability by a fit that has not seen that patient.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: str
    bundle_sha256: str
    cases: str
    config: CalibrationConfig
    before: CalibrationFigures
    after: CalibrationFigures
    calibrator: AnyCalibrator
    operating_points: tuple[OperatingPoint, ...]
    abstention: Abstaining | None = None


def calibrate(
    bundle: Bundle, table: PredictionTable, config: CalibrationConfig, fitted_on: str
) -> CalibrationReport:
    """Choose calibrator, thresholds and limits on these cases; nothing is written.

    Args:
        bundle: Scored the cases; its own calibrator is "before", else the bare logistic.
        table: Scored cases of val, of the source that decides.
        config: What is wanted.
        fitted_on: Says which cases these are.

    Raises:
        TrainingDataError: too few cases for what is wanted, or scores that do not rise.
    """
    scores, labels, groups = table.scores, table.labels, table.groups
    calibrator = fit_calibrator(
        scores,
        labels,
        groups=groups,
        fitted_on=fitted_on,
        methods=config.methods,
        seed=config.seed,
    )
    old = bundle.calibrator
    before = np.array([old.calibrate(s) if old else logistic(s) for s in scores])
    named = f"{old.method}, fitted on {old.fitted_on}" if old else "the logistic of the raw score"
    after = cross_fitted_probabilities(
        scores, labels, calibrator.method, groups=groups, seed=config.seed
    )
    probabilities = np.array([calibrator.calibrate(score) for score in scores])
    limits = _limits(scores, labels, config.abstain_alpha, fitted_on)
    silent = np.array([limits is not None and limits.abstains(score) for score in scores])
    return CalibrationReport(
        bundle=f"{bundle.name}-{bundle.version}",
        bundle_sha256=bundle.sha256,
        cases=fitted_on,
        config=config,
        before=calibration_figures(f"before: {named}", labels, before, config.seed),
        after=calibration_figures(
            f"after: {calibrator.method}, cross-fitted", labels, after, config.seed
        ),
        calibrator=calibrator,
        operating_points=_points(probabilities, labels, silent, config, fitted_on),
        abstention=limits and _abstaining(limits, labels, silent),
    )


def calibration_figures(
    what: str, labels: NDArray[np.bool_], probabilities: NDArray[np.float64], seed: int = 0
) -> CalibrationFigures:
    """Measure probabilities against labels, (N,) each."""
    slope, intercept = calibration_line(labels, probabilities)
    error = expected_calibration_error(labels, probabilities)
    chance = ece_under_perfect_calibration(probabilities, seed=seed)
    return CalibrationFigures(
        what=what,
        cases=len(labels),
        abnormal=int(labels.sum()),
        slope=slope,
        intercept=intercept,
        brier=brier_score(labels, probabilities),
        ece=error,
        ece_expected=chance.mean,
        ece_low=chance.low,
        ece_high=chance.high,
        passes=error <= chance.high,
    )


def write_calibrated(
    bundle: Bundle, table: PredictionTable, report: CalibrationReport, folder: Path, version: str
) -> Bundle:
    """Write the calibrated bundle, ``calibration.json`` and the run record into a folder.

    What the old evaluations said of probabilities and thresholds is dropped: it was said of the
    old calibrator. Their areas under the curve stay.
    """
    written = write_new_version(
        bundle,
        folder,
        {
            "version": version,
            "calibrator": report.calibrator,
            "operating_points": report.operating_points,
            "default_operating_point": report.config.default,
            "abstain_between": None,
            "conformal": report.abstention.limits if report.abstention else None,
            "site_prevalence": None,
            "metrics": _metrics(bundle.metrics, table, report),
        },
        card_section(report),
    )
    write_whole(folder / REPORT, as_json(report))
    data: dict[str, object] = {
        "cases": report.cases,
        "predictions_sha256": table.sha256,
        "bundle": report.bundle,
    }
    write_run_record(folder, report.config, data)
    return written


def card_section(report: CalibrationReport) -> str:
    """Say in the card what was calibrated, on what, and how well it holds."""
    point_lines = [
        f"| {p.name} | {p.threshold:.3f} | {p.sensitivity.value:.3f} "
        f"({p.sensitivity.lower_bound:.3f}, {p.sensitivity.n}) | {p.specificity.value:.3f} "
        f"({p.specificity.lower_bound:.3f}, {p.specificity.n}) |"
        for p in report.operating_points
    ]
    losses = ", ".join(f"{name} {loss:.4f}" for name, loss in report.calibrator.losses.items())
    lines = [
        f"## Calibration of {datetime.now(UTC).date()}",
        "",
        f"Fitted anew on {report.cases}; it replaces what is said of probabilities and thresholds "
        f"above. Chosen: {report.calibrator.method}, by cross-validated log loss ({losses}). "
        f"It holds where {report.calibrator.prevalence:.1%} of the images are abnormal.",
        "",
        *calibration_table([report.before, report.after]),
        "",
        "| operating point | threshold | sensitivity (lower bound, n) | specificity "
        "(lower bound, n) |",
        "|---|---|---|---|",
        *point_lines,
    ]
    if report.abstention:
        a = report.abstention
        lines += [
            "",
            f"No opinion is given where the limits for alpha {a.limits.alpha:g} exclude both "
            f"classes or none: {a.abstained:.1%} of these cases ({a.abstained_abnormal:.1%} of the "
            f"abnormal, {a.abstained_not_abnormal:.1%} of the others). The points above count a "
            "case without an opinion as neither flagged nor cleared.",
        ]
    return "\n".join(lines)


def calibration_table(figures: Sequence[CalibrationFigures]) -> list[str]:
    """Lay figures out as lines of a table in Markdown."""
    head = "| probabilities | n | slope | intercept | Brier | ECE | 95 % by chance | inside |"
    return [
        head,
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {one.what} | {one.cases} | {one.slope:.2f} | {one.intercept:+.2f} | "
            f"{one.brier:.4f} | {one.ece:.4f} | {one.ece_low:.3f} to {one.ece_high:.3f} | "
            f"{'yes' if one.passes else 'no'} |"
            for one in figures
        ),
    ]


def _points(
    probabilities: NDArray[np.float64],
    labels: NDArray[np.bool_],
    silent: NDArray[np.bool_],
    config: CalibrationConfig,
    chosen_on: str,
) -> tuple[OperatingPoint, ...]:
    choose = threshold_for_lower_bound if config.by_lower_bound else threshold_for_sensitivity
    wanted: Mapping[str, float] = config.sensitivities
    return tuple(
        operating_point(
            name,
            choose(probabilities, labels, share, silent),
            probabilities,
            labels,
            chosen_on,
            silent,
        )
        for name, share in wanted.items()
    )


def _limits(
    scores: NDArray[np.float64], labels: NDArray[np.bool_], alpha: float | None, chosen_on: str
) -> ConformalAbstention | None:
    return None if alpha is None else conformal_abstention(scores, labels, alpha, chosen_on)


def _abstaining(
    limits: ConformalAbstention, labels: NDArray[np.bool_], silent: NDArray[np.bool_]
) -> Abstaining:
    return Abstaining(
        limits=limits,
        abstained=float(silent.mean()),
        abstained_abnormal=float(silent[labels].mean()),
        abstained_not_abnormal=float(silent[~labels].mean()),
    )


def _metrics(old: Metrics, table: PredictionTable, report: CalibrationReport) -> Metrics:
    kept = tuple(
        Evaluation(
            name=row.name,
            abnormal=row.abnormal,
            not_abnormal=row.not_abnormal,
            held_out=row.held_out,
            calibrated_on=row.was_calibrated_on,
            note="; ".join(filter(None, [row.note, "calibrated anew since"])),
            auc=row.auc,
            auc_low=row.auc_low,
            auc_high=row.auc_high,
        )
        for row in old.evaluations
    )
    area, after = auc_interval(table.labels, table.scores), report.after
    here = Evaluation(
        name=f"{report.cases}, cross-fitted",
        abnormal=after.abnormal,
        not_abnormal=after.cases - after.abnormal,
        held_out=True,
        calibrated_on=True,
        note="set calibration and thresholds; probabilities by fits that have not seen the patient",
        auc=area.auc,
        auc_low=area.low,
        auc_high=area.high,
        brier=after.brier,
        calibration_slope=after.slope,
        calibration_intercept=after.intercept,
        expected_calibration_error=after.ece,
    )
    return old.model_copy(update={"evaluations": (*kept, here)})
