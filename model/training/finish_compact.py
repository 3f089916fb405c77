"""Calibrate the trained compact network, measure it once on test cases, pack its bundle.

Run: ``python -m model.training.finish_compact --data ../shared/data/cxr --out runs/compact_second
--bundle runs/chest_xray_compact-1.2.0 --test-log docs/test_log.csv``
"""

import argparse
import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from model.bundles import WEIGHTS, Bundle
from model.calibration import fit_calibrator
from model.eligibility import EligibilityRules
from model.evaluation.discrimination import auc
from model.evaluation.test_log import Look, log_looks
from model.measured import Evaluation, Metrics
from model.network import TriageNetwork, build_network
from model.operating_points import operating_point, threshold_for_sensitivity
from model.preprocessing import PreprocessingSpec
from model.training.against_thumbnails import LAST_PHASE, against_both_baselines
from model.training.cases import Case, boxed_paths, of_dataset, read_cases
from model.training.compact_card import INTENDED_USE, compact_card
from model.training.compact_measures import (
    HEADLINE,
    Scored,
    calibration_by_chance,
    evaluations_of,
    shortcuts,
)
from model.training.compact_recipe import ENCODER
from model.training.compact_start import Start, mean_of_starts, read_start
from model.training.packing import write_bundle, write_half_weights
from model.training.predictions import Predicted, predict_images
from model.training.radiographs import load_prepared
from model.training.triage_head import FittedHead, refit_triage_head

NAME, VERSION = "chest_xray_compact", "1.2.0"
SENSITIVITIES = {"sensitive": 0.90, "default": 0.75, "specific": 0.50}
HELD_OUT = ("val", "test")


@dataclass(frozen=True)
class HeadChoice:
    """The triage head fitted anew, NIH val's AUC without and with it, and whether it was kept."""

    fitted: FittedHead
    val_auc_before: float
    val_auc_after: float
    kept: bool


def finish(data: Path, trained: Start, folder: Path, test_log: Path, name: str = NAME) -> Bundle:
    """Turn trained weights into a bundle in ``folder``; each look at test is logged."""
    record = trained.record
    spec = PreprocessingSpec(size_px=trained.size_px)
    network = build_network(ENCODER.model_dump())
    network.load_state_dict(trained.weights)
    every_case = read_cases(data)
    boxes = data.parent / "boxes" / "boxes.csv"
    head = _choose_head(network, every_case, boxes, spec)
    network = write_half_weights(network, folder)
    cases = [case for case in every_case if case.split in HELD_OUT]
    scored = Scored(cases, _predict(network, cases, spec))

    val = scored.rows({"nih_cxr14"}, {"val"}, adult=True)
    score, labels = scored.predicted.score, scored.labels(val)
    patients = np.array([cases[row].patient_id for row in val])
    calibrator = fit_calibrator(score[val], labels, fitted_on="NIH val, adults", groups=patients)
    probabilities = np.array([calibrator.calibrate(one) for one in score[val]])
    points = tuple(
        operating_point(
            name,
            threshold_for_sensitivity(probabilities, labels, wanted),
            probabilities,
            labels,
            "NIH val, adults",
        )
        for name, wanted in SENSITIVITIES.items()
    )
    threshold = next(point.threshold for point in points if point.name == "default")
    evaluations = evaluations_of(scored, calibrator, threshold)
    further = {
        **shortcuts(scored, evaluations),
        **calibration_by_chance(scored, calibrator),
        **against_both_baselines(scored, every_case, boxes, record["data"]),
    }
    metrics = Metrics(headline=HEADLINE, evaluations=evaluations, further=further)
    support = float(np.quantile(scored.predicted.insight_probability[val][labels], 0.1))
    training = {
        **record,
        "triage_head": asdict(head),
        "bundled_at": datetime.now(UTC).date().isoformat(),
    }
    fields = {
        "name": name,
        "version": VERSION,
        "pipeline": "chest_xray",
        "encoder": ENCODER.model_dump(),
        "preprocessing": spec,
        "calibrator": calibrator,
        "operating_points": points,
        "default_operating_point": "default",
        "insight_support": support,
        "eligibility": EligibilityRules(),
        "metrics": metrics,
        "training": training,
        "intended_use": INTENDED_USE,
        "licence": "Apache-2.0",
    }
    card = compact_card(name, VERSION, metrics, calibrator, points, training)
    bundle = write_bundle(folder, card, fields)
    _log_test(test_log, bundle, evaluations, further)
    return bundle


def _choose_head(
    network: TriageNetwork, cases: list[Case], boxes: Path, spec: PreprocessingSpec
) -> HeadChoice:
    """Fit the triage head on the NIH adults of train, and keep the fit if it wins on NIH val."""
    boxed = boxed_paths(cases, boxes)
    chosen = of_dataset(cases, {"nih_cxr14"}, {"train"}, adult=True)
    train = [cases[row] for row in chosen if cases[row].path not in boxed]
    labels = np.array([case.abnormal for case in train], dtype=bool)
    patients = np.array([case.patient_id for case in train])
    val = [cases[row] for row in of_dataset(cases, {"nih_cxr14"}, {"val"}, adult=True)]
    of_val = np.array([case.abnormal for case in val], dtype=bool)
    images = load_prepared(val, spec)
    trained_with_the_encoder = copy.deepcopy(network.triage.state_dict())
    before = auc(of_val, predict_images(network, images, mean=0.0, std=1.0).score)
    fitted = refit_triage_head(network, _predict(network, train, spec), labels, patients)
    after = auc(of_val, predict_images(network, images, mean=0.0, std=1.0).score)
    if after < before:
        network.triage.load_state_dict(trained_with_the_encoder)
    return HeadChoice(fitted, before, after, kept=after >= before)


def _predict(network: TriageNetwork, cases: list[Case], spec: PreprocessingSpec) -> Predicted:
    return predict_images(network, load_prepared(cases, spec), mean=0.0, std=1.0)


def _log_test(
    path: Path,
    bundle: Bundle,
    evaluations: tuple[Evaluation, ...],
    further: Mapping[str, float],
) -> None:
    """Log each evaluation that has looked at test cases, and the baselines' on the headline's."""
    headline = next(row for row in evaluations if row.name == HEADLINE)
    looks = [_look(bundle, row) for row in evaluations if "test" in row.name]
    of_thumbnails = [
        _look(bundle, headline)._replace(
            model=f"thumbnails 32x32{suffix.replace('_', ' ')}", sha256="", measured={"auc": area}
        )
        for suffix in ("", LAST_PHASE)
        if (area := further.get(f"thumbnail_auc_nih_test_adults{suffix}")) is not None
    ]
    log_looks(path, *looks, *of_thumbnails)


def _look(bundle: Bundle, row: Evaluation) -> Look:
    return Look(
        job="compact",
        model=f"{bundle.name}-{bundle.version}",
        sha256=bundle.files[WEIGHTS],
        cases=row.name,
        abnormal=row.abnormal,
        not_abnormal=row.not_abnormal,
        commit=str(bundle.training["commit"]),
        measured={
            "auc": row.auc,
            "auc_low": row.auc_low,
            "auc_high": row.auc_high,
            "brier": row.brier,
            "ece": row.expected_calibration_error,
        },
    )


def main() -> None:
    """Read the command line and finish a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with cxr.csv and images/")
    parser.add_argument(
        "--out", type=Path, nargs="+", required=True, help="a run; several: the mean of weights"
    )
    parser.add_argument("--name", default=NAME, help="another name for an arm that does not ship")
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--test-log", type=Path, default=Path("docs/test_log.csv"))
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    trained = mean_of_starts([read_start(folder) for folder in arguments.out])
    finish(arguments.data, trained, arguments.bundle, arguments.test_log, arguments.name)


if __name__ == "__main__":
    main()
