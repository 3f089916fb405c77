"""Fit calibrators, and choose among their kinds by cross-validated log loss; no torch."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.errors import TrainingDataError
from model.calibrators import (
    AnyCalibrator,
    BetaCalibrator,
    Calibrator,
    IsotonicCalibrator,
    LogisticCalibrator,
    logistic,
)

__all__ = [
    "METHODS",
    "AnyCalibrator",
    "BetaCalibrator",
    "Calibrator",
    "IsotonicCalibrator",
    "LogisticCalibrator",
    "cross_fitted_probabilities",
    "fit_calibrator",
    "logistic",
]

ITERATIONS = 100
METHODS = ("temperature", "platt", "beta", "isotonic")
FOLDS = 10

Floats = NDArray[np.float64]
Parameters = dict[str, Any]


def fit_calibrator(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    fitted_on: str,
    groups: ArrayLike | None = None,
    methods: Sequence[str] = METHODS,
    folds: int = FOLDS,
    seed: int = 0,
) -> AnyCalibrator:
    """Fit every kind, keep the one with the least cross-validated log loss; simpler wins a tie.

    Args:
        scores: Raw, (N,).
        labels: (N,), true for abnormal.
        fitted_on: Says which cases these are.
        groups: (N,), patients: folds of the cross-validation never split one. Default: each case
            is its own.
        methods: Which kinds to try, the simplest first.
        folds: How many; fewer where there are not as many groups.
        seed: Deals the groups to the folds.

    Raises:
        TrainingDataError: one class alone, too few groups, or scores that do not rise with the
            label.
    """
    x, y = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    fold = deal_folds(y, groups, folds, seed)
    losses = {method: _validated(x, y, fold, method) for method in methods}
    method = min(losses, key=lambda key: losses[key])
    return _calibrator(method, FITS[method](x, y), y, losses, fitted_on)


def cross_fitted_probabilities(
    scores: ArrayLike,
    labels: ArrayLike,
    method: str,
    *,
    groups: ArrayLike | None = None,
    folds: int = FOLDS,
    seed: int = 0,
) -> Floats:
    """Calibrate each case by a fit that has not seen its group; (N,).

    Figures of calibration on the very cases that set it would flatter; these do not.
    """
    x, y = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    logits = _cross_fitted_logits(x, y, deal_folds(y, groups, folds, seed), method)
    return np.asarray([logistic(value) for value in logits])


def deal_folds(labels: Floats, groups: ArrayLike | None, folds: int, seed: int) -> NDArray[np.intp]:
    """Deal whole groups to folds so that the share of labels stays; (N,), 0 to folds - 1.

    Raises:
        TrainingDataError: a class has fewer than two groups, so no fold could be held out.
    """
    named = np.arange(len(labels)) if groups is None else np.asarray(groups)
    _, group_of = np.unique(named, return_inverse=True)
    cases = np.stack(
        [np.bincount(group_of, labels == label, group_of.max() + 1) for label in (0, 1)], axis=1
    )  # (groups, 2)
    smallest = int((cases > 0).sum(0).min()) if len(cases) else 0
    if smallest < 2:
        raise TrainingDataError("calibration needs at least two patients of each class")
    folds = min(folds, smallest)
    order = np.random.default_rng(seed).permutation(len(cases))
    order = order[np.argsort(-cases[order].sum(1), kind="stable")]  # the largest first
    dealt = np.zeros((folds, 2))
    fold_of = np.empty(len(cases), dtype=np.intp)
    for group in order:
        main = int(cases[group].argmax())
        fold = int(np.lexsort((dealt.sum(1), dealt[:, main]))[0])
        dealt[fold] += cases[group]
        fold_of[group] = fold
    return fold_of[group_of]


def _calibrator(
    method: str, parameters: Parameters, y: Floats, losses: dict[str, float], fitted_on: str
) -> AnyCalibrator:
    kind = {"beta": BetaCalibrator, "isotonic": IsotonicCalibrator}.get(method, LogisticCalibrator)
    try:
        return kind(
            method=method,  # pyright: ignore[reportArgumentType]  one of METHODS
            **parameters,
            prevalence=float(y.mean()),
            cases=len(y),
            log_loss=losses[method],
            losses=losses,
            fitted_on=fitted_on,
        )
    except ValueError as error:
        raise TrainingDataError(
            f"the scores do not rise with the label on {fitted_on}: they cannot be calibrated"
        ) from error


def _validated(x: Floats, y: Floats, fold: NDArray[np.intp], method: str) -> float:
    """Mean log loss over cases that the fit has not seen."""
    logits = _cross_fitted_logits(x, y, fold, method)
    return float((np.logaddexp(0, logits) - y * logits).mean())


def _cross_fitted_logits(x: Floats, y: Floats, fold: NDArray[np.intp], method: str) -> Floats:
    logits = np.empty(len(y))
    for held_out in np.unique(fold):
        rows = fold == held_out
        logits[rows] = _logits(method, FITS[method](x[~rows], y[~rows]), x[rows])
    return logits


def _logits(method: str, parameters: Parameters, x: Floats) -> Floats:
    """Apply fitted numbers that may not make a calibrator, as on a fold where nothing rises."""
    if method == "isotonic":
        p = np.interp(x, parameters["scores"], parameters["probabilities"])
        return np.log(p / (1 - p))
    if method == "beta":
        columns = _beta_design(x) @ np.array([parameters["a"], parameters["b"]])
        return columns + parameters["c"]
    return parameters["slope"] * x + parameters.get("intercept", 0.0)


def _fit_temperature(x: Floats, y: Floats) -> Parameters:
    """Source: Guo et al. 2017."""
    return {"slope": float(_fit_logistic(x[:, None], y)[0])}


def _fit_platt(x: Floats, y: Floats) -> Parameters:
    """Source: Platt 1999."""
    slope, intercept = _fit_logistic(np.stack([x, np.ones_like(x)], axis=1), y)
    return {"slope": float(slope), "intercept": float(intercept)}


def _fit_beta(x: Floats, y: Floats) -> Parameters:
    """Fit a, b, c; where a or b would fall below 0 it is 0 and the rest is fitted anew."""
    design, ones = _beta_design(x), np.ones((len(x), 1))
    kept = [0, 1]
    weights = _fit_logistic(np.hstack([design, ones]), y)
    while kept and weights[: len(kept)].min() < 0:
        kept.pop(int(weights[: len(kept)].argmin()))
        weights = _fit_logistic(np.hstack([design[:, kept], ones]), y)
    found = dict(zip(kept, weights, strict=False))
    return {"a": float(found.get(0, 0)), "b": float(found.get(1, 0)), "c": float(weights[-1])}


def _beta_design(x: Floats) -> Floats:
    """Give ln(s) and -ln(1 - s) of s = logistic(x), as columns."""
    return np.stack([-np.logaddexp(0, -x), np.logaddexp(0, x)], axis=1)


def _fit_isotonic(x: Floats, y: Floats) -> Parameters:
    """Pool adjacent violators; then bound the probabilities as Laplace's rule would."""
    from sklearn.isotonic import IsotonicRegression  # slow to load, and only fitting needs it

    fitted = IsotonicRegression().fit(x, y)
    least = 1 / (len(y) + 2)
    p = np.clip(fitted.y_thresholds_, least, 1 - least)
    return {"scores": tuple(map(float, fitted.X_thresholds_)), "probabilities": tuple(p.tolist())}


def _fit_logistic(design: Floats, y: Floats) -> Floats:
    """Fit a logistic regression on Platt's targets by Newton's method; (columns,)."""
    positives = y.sum()
    high = (positives + 1) / (positives + 2)  # Platt's targets keep separable scores finite
    low = 1 / (len(y) - positives + 2)
    target = np.where(y > 0, high, low)
    weights = np.zeros(design.shape[1])
    for _ in range(ITERATIONS):
        p = 1 / (1 + np.exp(-np.clip(design @ weights, -500, 500)))
        gradient = design.T @ (p - target)
        curvature = (design * (p * (1 - p))[:, None]).T @ design
        step = np.linalg.solve(curvature + 1e-9 * np.eye(len(weights)), gradient)
        weights -= step / max(1.0, float(np.abs(step).max()) / 2)
        if np.abs(step).max() < 1e-10:
            break
    return weights


FITS: dict[str, Callable[[Floats, Floats], Parameters]] = {
    "temperature": _fit_temperature,
    "platt": _fit_platt,
    "beta": _fit_beta,
    "isotonic": _fit_isotonic,
}
