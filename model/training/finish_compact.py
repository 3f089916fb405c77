"""Calibrate the trained compact network, measure it once on test cases, pack its bundle.

Run: ``python -m model.training.finish_compact --data ../shared/data/cxr --out runs/compact
--bundle runs/chest_xray_compact-1.0.0 --test-log docs/test_log.csv``
"""

import argparse
import csv
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from model.bundles import WEIGHTS, Bundle
from model.calibration import Calibrator, fit_calibrator
from model.eligibility import EligibilityRules
from model.evaluation.discrimination import auc
from model.evaluation.evaluate import evaluate
from model.evaluation.source_readability import source_readability
from model.measured import Evaluation, Metrics
from model.network import TriageNetwork, build_network
from model.operating_points import operating_point, threshold_for_sensitivity
from model.preprocessing import PreprocessingSpec
from model.training.cases import Case, boxed_paths, of_dataset, read_cases
from model.training.compact import ENCODER, LAST_STAGE
from model.training.compact_card import INTENDED_USE, compact_card
from model.training.packing import write_bundle, write_half_weights
from model.training.predictions import Predicted, predict_images
from model.training.radiographs import load_prepared
from model.training.run_record import RECORD
from model.training.triage_head import FittedHead, refit_triage_head

NAME, VERSION = "chest_xray_compact", "1.0.0"
SENSITIVITIES = {"sensitive": 0.90, "default": 0.75, "specific": 0.50}
TEST_LOG_COLUMNS = (
    *("date", "bundle", "weights_sha256", "cases", "abnormal", "not_abnormal"),
    *("auc", "auc_low", "auc_high", "brier", "ece", "commit"),
)
SUBGROUP_AGE_YEARS = 50
HELD_OUT = ("val", "test")
USED_VAL = "val also set calibration and thresholds"


@dataclass(frozen=True)
class Scored:
    """Held-out cases with what the network says of them."""

    cases: list[Case]
    predicted: Predicted

    def rows(self, datasets: set[str], splits: set[str], *, adult: bool | None) -> NDArray[np.intp]:
        """Number the cases of these data sets and splits."""
        return of_dataset(self.cases, datasets, splits, adult=adult)

    def labels(self, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Give the truth of some rows."""
        return np.array([self.cases[row].abnormal for row in rows], dtype=bool)


def finish(data: Path, out: Path, folder: Path, test_log: Path) -> Bundle:
    """Turn the run in ``out`` into a bundle in ``folder``; each look at test is logged."""
    record = json.loads((out / RECORD).read_text())
    spec = PreprocessingSpec(size_px=LAST_STAGE.size_px)
    network = build_network(ENCODER.model_dump())
    network.load_state_dict(load_file(out / "checkpoint" / "average.safetensors"))
    every_case = read_cases(data)
    head = _refit_head(network, every_case, data.parent / "boxes" / "boxes.csv", spec)
    network = write_half_weights(network, folder)
    cases = [case for case in every_case if case.split in HELD_OUT]
    scored = Scored(cases, _predict(network, cases, spec))

    val = scored.rows({"nih_cxr14"}, {"val"}, adult=True)
    score, labels = scored.predicted.score, scored.labels(val)
    calibrator = fit_calibrator(score[val], labels, fitted_on="NIH val, adults")
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
    metrics = Metrics(
        headline="NIH test, adults",
        evaluations=evaluations,
        further=_further(scored, evaluations),
    )
    support = float(np.quantile(scored.predicted.insight_probability[val][labels], 0.1))
    training = {
        **record,
        "triage_head": asdict(head),
        "bundled_at": datetime.now(UTC).date().isoformat(),
    }
    fields = {
        "name": NAME,
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
    card = compact_card(metrics, calibrator, points, training)
    bundle = write_bundle(folder, card, fields)
    _log_test(test_log, bundle, evaluations)
    return bundle


def evaluations_of(
    scored: Scored, calibrator: Calibrator, threshold: float
) -> tuple[Evaluation, ...]:
    """Measure every held-out group apart; a pooled figure over sources would mean nothing."""
    groups: list[tuple[str, set[str], set[str], bool | None, str]] = [
        ("NIH test, adults", {"nih_cxr14"}, {"test"}, True, "headline"),
        ("NIH test, all ages", {"nih_cxr14"}, {"test"}, None, ""),
        ("NIH val, adults", {"nih_cxr14"}, {"val"}, True, USED_VAL),
        ("NIH val and test, adults", {"nih_cxr14"}, {"val", "test"}, True, USED_VAL),
        ("RSNA normals test, adults", {"crd_normal"}, {"test"}, True, "normals only"),
        ("Hannover COVID-19 test, adults", {"hannover_covid"}, {"test"}, True, "abnormal only"),
        ("Kermany test, children", {"kermany_pediatric"}, {"test"}, False, "outside intended use"),
    ]
    rows = []
    for name, datasets, splits, adult, note in groups:
        numbers = scored.rows(datasets, splits, adult=adult)
        rows.append(
            evaluate(
                name,
                scored.predicted.score[numbers],
                scored.labels(numbers),
                calibrator,
                threshold,
                note=note,
            )
        )
    for name, numbers in _subgroups(scored).items():
        labels = scored.labels(numbers)
        score = scored.predicted.score[numbers]
        rows.append(evaluate(name, score, labels, calibrator, threshold, note=USED_VAL))
    return tuple(rows)


def _subgroups(scored: Scored) -> dict[str, NDArray[np.intp]]:
    """Number the NIH adults of val and test by sex, view and age."""
    adults = scored.rows({"nih_cxr14"}, {"val", "test"}, adult=True)
    belongs: dict[str, Callable[[Case], bool]] = {
        "women": lambda case: case.sex == "F",
        "men": lambda case: case.sex == "M",
        "AP": lambda case: case.view == "AP",
        "PA": lambda case: case.view == "PA",
        "under 50 years": lambda case: case.age is not None and case.age < SUBGROUP_AGE_YEARS,
        "from 50 years": lambda case: case.age is not None and case.age >= SUBGROUP_AGE_YEARS,
    }
    return {
        f"NIH val and test, adults, {name}": np.array(
            [row for row in adults if of(scored.cases[row])], dtype=np.intp
        )
        for name, of in belongs.items()
    }


def _further(scored: Scored, evaluations: tuple[Evaluation, ...]) -> dict[str, float]:
    """Measure what no set of cases tells alone: shortcuts, and whether INSIGHT agrees."""
    adults = scored.rows({"nih_cxr14", "crd_normal"}, {"val", "test"}, adult=True)
    normal = adults[~scored.labels(adults)]
    from_nih = np.array([scored.cases[row].dataset == "nih_cxr14" for row in normal])
    nih_test = scored.rows({"nih_cxr14"}, {"test"}, adult=True)
    insight = auc(scored.labels(nih_test), scored.predicted.insight_probability[nih_test])
    areas = {row.name: row.auc for row in evaluations}
    both = [areas["NIH test, all ages"] or 0.0, areas["Kermany test, children"] or 0.0]
    readable = source_readability(
        scored.predicted.embedding[normal], scored.predicted.score[normal], from_nih
    )
    return {
        "mean_auc_nih_and_kermany_test": sum(both) / 2,
        "insight_auc_nih_test_adults": insight,
        "source_auc_from_embedding": readable.from_embedding,
        "source_auc_from_score": readable.from_score,
    }


def _refit_head(
    network: TriageNetwork, cases: list[Case], boxes: Path, spec: PreprocessingSpec
) -> FittedHead:
    """Fit the triage head on the NIH adults of train, whose patients are known."""
    boxed = boxed_paths(cases, boxes)
    chosen = of_dataset(cases, {"nih_cxr14"}, {"train"}, adult=True)
    train = [cases[row] for row in chosen if cases[row].path not in boxed]
    labels = np.array([case.abnormal for case in train], dtype=bool)
    patients = np.array([case.patient_id for case in train])
    return refit_triage_head(network, _predict(network, train, spec), labels, patients)


def _predict(network: TriageNetwork, cases: list[Case], spec: PreprocessingSpec) -> Predicted:
    return predict_images(network, load_prepared(cases, spec), mean=0.0, std=1.0)


def _log_test(path: Path, bundle: Bundle, evaluations: tuple[Evaluation, ...]) -> None:
    """Append one line for each evaluation that has looked at test cases."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, TEST_LOG_COLUMNS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        for row in evaluations:
            if "test" in row.name:
                writer.writerow(_log_row(bundle, row))


def _log_row(bundle: Bundle, row: Evaluation) -> dict[str, object]:
    figures = {
        "auc": row.auc,
        "auc_low": row.auc_low,
        "auc_high": row.auc_high,
        "brier": row.brier,
        "ece": row.expected_calibration_error,
    }
    return {
        "date": datetime.now(UTC).date(),
        "bundle": f"{bundle.name}-{bundle.version}",
        "weights_sha256": bundle.files[WEIGHTS][:16],
        "cases": row.name,
        "abnormal": row.abnormal,
        "not_abnormal": row.not_abnormal,
        **{name: "" if value is None else f"{value:.4f}" for name, value in figures.items()},
        "commit": bundle.training["commit"],
    }


def main() -> None:
    """Read the command line and finish a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with cxr.csv and images/")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--test-log", type=Path, default=Path("docs/test_log.csv"))
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    finish(arguments.data, arguments.out, arguments.bundle, arguments.test_log)


if __name__ == "__main__":
    main()
