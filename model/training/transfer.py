"""Classify embeddings: five kinds, chosen by grouped cross-validation, refitted on train.

Letters of shapes: N rows of the store, n of a split, D features.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from sklearn.model_selection import StratifiedGroupKFold

from common.errors import TrainingDataError
from model.calibration import AnyCalibrator, cross_fitted_probabilities, fit_calibrator
from model.evaluation.discrimination import auc
from model.evaluation.prediction_table import PredictionTable, write_predictions
from model.training.classifier_fitting import GRIDS, Choices, fit_classifier
from model.training.classifiers import Classifier, read_classifier, write_classifier
from model.training.feature_store import FeatureStore, as_json, file_sha256, write_whole
from model.training.manifest_predictions import table_of
from model.training.run_record import write_run_record

FOLDS = 5
SUMMARY = "transfer.json"


class TransferConfig(BaseModel):
    """What fixes a result: which rows, by the values of their columns, were used for what."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classifiers: tuple[str, ...]
    bundle: str
    bundle_sha256: str
    manifest_fingerprint: str
    trained_on: dict[str, str]
    measured_on: dict[str, str]
    folds: int = FOLDS
    seed: int = 0


class TransferResult(BaseModel):
    """One classifier: what was chosen, how it did, and how its scores become probabilities.

    ``cv_auc`` is the mean over folds, ``cv_auc_sd`` their standard deviation; the choice was made
    on the same folds, so it flatters a little. ``val_auc`` does not: val chose nothing but the
    calibrator.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    choices: dict[str, Any]
    cv_auc: float
    cv_auc_sd: float
    tried: list[dict[str, Any]]
    train: int
    val: int
    val_abnormal: int
    val_auc: float
    calibrator: AnyCalibrator
    weights_sha256: str
    config: TransferConfig


@dataclass(frozen=True)
class _Cases:
    """Arrays of the store, and which rows belong where."""

    store: FeatureStore
    trained: NDArray[np.bool_]
    measured: NDArray[np.bool_]

    def split(self, *splits: str) -> NDArray[np.intp]:
        rows = self.store.rows_of(*splits)
        return rows[self.trained[rows]] if splits == ("train",) else rows


def transfer(
    store: FeatureStore,
    out: Path,
    *,
    classifiers: Sequence[str] = tuple(GRIDS),
    trained_on: dict[str, str] | None = None,
    measured_on: dict[str, str] | None = None,
    with_test: bool = False,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> list[TransferResult]:
    """Fit, choose, calibrate and write every classifier; those already there are kept.

    ``<name>.safetensors`` is the classifier, ``<name>.json`` its result, ``<name>.csv`` its
    predictions of val (and test), ``<name>.cv.csv`` of train, each case by a fit that has not
    seen its group. Probabilities of val are cross-fitted; the others are the calibrator's.

    Args:
        store: Embeddings with rows in train and val.
        out: Made if it is not there.
        classifiers: Keys of ``GRIDS``.
        trained_on: Column values; only such rows of train are fitted to.
        measured_on: Column values; only such rows are measured and calibrated on. A pooled AUC
            over sources tells where an image came from.
        with_test: Predict test too.
        seed: Of folds and fits.
        say: Told of progress.

    Raises:
        TrainingDataError: no rows to train, choose or calibrate on.
    """
    config = TransferConfig(
        classifiers=tuple(classifiers),
        bundle=store.index.plan.bundle,
        bundle_sha256=store.bundle_sha256,
        manifest_fingerprint=store.manifest_fingerprint,
        trained_on=trained_on or {},
        measured_on=measured_on or {},
        seed=seed,
    )
    cases = _Cases(store, _having(store, config.trained_on), _having(store, config.measured_on))
    for split in ("train", "val"):
        rows = cases.split(split)
        labels = store.labels[rows[cases.measured[rows]]]
        if not len(labels) or labels.all() or not labels.any():
            raise TrainingDataError(
                f"{store.folder}: split {split} needs measured rows of both labels"
            )
    write_run_record(out, config, {"manifest_sha256": store.manifest_fingerprint})
    results = [_one(cases, out, name, config, with_test, say) for name in classifiers]
    summary = {"config": config.model_dump(mode="json"), "classifiers": []}
    summary["classifiers"] = [one.model_dump(mode="json", exclude={"config"}) for one in results]
    write_whole(out / SUMMARY, (json.dumps(summary, indent=2) + "\n").encode())
    return results


def _one(
    cases: _Cases,
    out: Path,
    name: str,
    config: TransferConfig,
    with_test: bool,
    say: Callable[[str], None],
) -> TransferResult:
    result = _read_result(out, name, config)
    if result is None:
        result = _fit_one(cases, out, name, config, say)
    classifier, _ = read_classifier(out / f"{name}.safetensors")
    _write_held_out(cases, out, classifier, result, with_test=with_test)
    say(
        f"{name}: cross-validated AUC {result.cv_auc:.3f} (sd {result.cv_auc_sd:.3f}), "
        f"val {result.val_auc:.3f}, {result.calibrator.method}"
    )
    return result


def _fit_one(
    cases: _Cases, out: Path, name: str, config: TransferConfig, say: Callable[[str], None]
) -> TransferResult:
    store, train, val = cases.store, cases.split("train"), cases.split("val")
    x, y = store.embeddings, store.labels
    tried, held_out = cross_validate(
        name,
        x[train],
        y[train],
        store.groups[train],
        cases.measured[train],
        folds=config.folds,
        seed=config.seed,
        say=say,
    )
    best = max(range(len(tried)), key=lambda number: tried[number]["cv_auc"])
    choices: Choices = tried[best]["choices"]
    classifier = fit_classifier(name, x[train], y[train], choices, config.seed)
    path = out / f"{name}.safetensors"
    write_classifier(path, classifier, {"name": name, "bundle_sha256": store.bundle_sha256})
    measured = val[cases.measured[val]]
    scores = classifier.score(x[measured])
    calibrator = fit_calibrator(
        scores, y[measured], groups=store.groups[measured], fitted_on=_said(config, "val")
    )
    result = TransferResult(
        name=name,
        choices=choices,
        cv_auc=tried[best]["cv_auc"],
        cv_auc_sd=tried[best]["cv_auc_sd"],
        tried=tried,
        train=len(train),
        val=len(measured),
        val_abnormal=int(y[measured].sum()),
        val_auc=auc(y[measured], scores),
        calibrator=calibrator,
        weights_sha256=file_sha256(path),
        config=config,
    )
    calibrated = np.array([calibrator.calibrate(score) for score in held_out[best]])
    _write(out / f"{name}.cv.csv", cases, train, held_out[best], calibrated, result)
    write_whole(out / f"{name}.json", as_json(result))
    return result


def cross_validate(
    name: str,
    x: NDArray[np.float32],
    y: NDArray[np.bool_],
    groups: NDArray[np.str_],
    measured: NDArray[np.bool_],
    *,
    folds: int = FOLDS,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[list[dict[str, Any]], list[NDArray[np.float64]]]:
    """Measure every choice of one kind by folds that part no group.

    Args:
        name: A key of ``GRIDS``.
        x: (n, D), embeddings.
        y: (n,), True is abnormal.
        groups: (n,), patients.
        measured: (n,); the others are trained on alone.
        folds: How many.
        seed: Deals the groups.
        say: Told of progress.

    Returns:
        Of each choice: what it is with mean and standard deviation of AUC over the folds; and
        the score of each case by the fit that has not seen its group, (n,).
    """
    dealer = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    dealt = list(dealer.split(x, y + 2 * measured, groups))
    tried: list[dict[str, Any]] = []
    held_out: list[NDArray[np.float64]] = []
    for choices in GRIDS[name]:
        scores, areas = np.empty(len(x)), []
        for fitted_on, tested_on in dealt:
            classifier = fit_classifier(name, x[fitted_on], y[fitted_on], choices, seed)
            scores[tested_on] = classifier.score(x[tested_on])
            seen = tested_on[measured[tested_on]]
            areas.append(auc(y[seen], scores[seen]))
        spread = float(np.std(areas, ddof=1))
        tried.append({"choices": choices, "cv_auc": float(np.mean(areas)), "cv_auc_sd": spread})
        held_out.append(scores)
        say(f"{name} {choices}: AUC {tried[-1]['cv_auc']:.4f}")
    return tried, held_out


def _write_held_out(
    cases: _Cases, out: Path, classifier: Classifier, result: TransferResult, *, with_test: bool
) -> None:
    """Write the predictions of val, cross-fitted, and of test if it is looked at."""
    store, config = cases.store, result.config
    rows = cases.split("val", "test") if with_test else cases.split("val")
    scores = classifier.score(store.embeddings[rows])
    probabilities = np.array([result.calibrator.calibrate(score) for score in scores])
    of_val = np.array([store.rows[row].split == "val" for row in rows]) & cases.measured[rows]
    probabilities[of_val] = cross_fitted_probabilities(
        scores[of_val],
        store.labels[rows[of_val]],
        result.calibrator.method,
        groups=store.groups[rows[of_val]],
        seed=config.seed,
    )
    _write(out / f"{result.name}.csv", cases, rows, scores, probabilities, result)


def _write(
    path: Path,
    cases: _Cases,
    rows: NDArray[np.intp],
    scores: NDArray[np.float64],
    probabilities: NDArray[np.float64],
    result: TransferResult,
) -> None:
    """Write predictions of the rows that are measured; the others would mislead beside them."""
    kept = cases.measured[rows]
    chosen = [cases.store.rows[row] for row in rows[kept]]
    table: PredictionTable = table_of(
        chosen, scores[kept], probabilities[kept], name=result.name, sha256=result.weights_sha256
    )
    write_predictions(path, table)


def _read_result(out: Path, name: str, config: TransferConfig) -> TransferResult | None:
    """Give an earlier result if it is of the same store and choices, and its file is whole."""
    weights = out / f"{name}.safetensors"
    try:
        result = TransferResult.model_validate_json((out / f"{name}.json").read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    same = result.config.model_copy(update={"classifiers": config.classifiers}) == config
    grid = [one["choices"] for one in result.tried] == list(GRIDS[name])
    whole = weights.is_file() and file_sha256(weights) == result.weights_sha256
    return result if same and grid and whole else None


def _having(store: FeatureStore, values: dict[str, str]) -> NDArray[np.bool_]:
    for column in values:
        if column not in store.rows[0].columns:
            there = ", ".join(store.rows[0].columns)
            raise TrainingDataError(f"{store.folder}: no column {column!r}; there are {there}")
    return np.array(
        [
            all(row.columns.get(name) == value for name, value in values.items())
            for row in store.rows
        ]
    )


def _said(config: TransferConfig, split: str) -> str:
    only = " ".join(f"{name}={value}" for name, value in config.measured_on.items())
    return f"{split} {only}".strip()
