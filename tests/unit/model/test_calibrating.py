"""Calibrating a bundle: the same weights, a new version, and no old word on new numbers."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from common.errors import ConfigurationError, TrainingDataError
from firstread.cli import app
from model.bundles import WEIGHTS, Bundle, read_bundle
from model.evaluation.prediction_table import read_predictions
from model.prevalence import SitePrevalence
from model.training.bundle_versions import next_version, write_new_version
from model.training.calibrating import CalibrationConfig, calibrate, calibration_figures
from tests.small_bundle import write_small_bundle


def scored(
    path: Path, *, slope: float, intercept: float, n: int = 400, bundle: Bundle | None = None
) -> NDArray[np.bool_]:
    """Write scores of two images a patient whose log odds are a line of the score."""
    by = [bundle.sha256] if bundle else []
    generator = np.random.default_rng(0)
    scores = generator.normal(0, 2, size=n)
    labels = generator.random(n) < 1 / (1 + np.exp(-(slope * scores + intercept)))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        scored_by = ["bundle_sha256"] * len(by)
        head = ["file", "label", "group", "split", "score", "probability", "dataset", *scored_by]
        writer.writerow(head)
        for row in range(n):
            split = "test" if row % 5 == 0 else "val"
            source = "a" if row % 4 else "b"
            patient = f"p{row // 2}" + split
            writer.writerow(
                [f"{row}.png", int(labels[row]), patient, split, scores[row], "", source, *by]
            )
    return labels


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A bundle with random weights and a calibrator that does not fit."""
    site = SitePrevalence(prevalence=0.1, source="made up")
    return write_small_bundle(tmp_path / "bundle", site_prevalence=site)


def test_the_command_writes_a_calibrated_version_and_leaves_the_old_one(
    bundle: Bundle, tmp_path: Path
) -> None:
    scored(tmp_path / "scores.csv", slope=0.5, intercept=-1.0, bundle=bundle)
    out = tmp_path / "calibrated"
    command = ["train", "calibrate", "--bundle", str(bundle.folder), "--out", str(out)]
    command += ["--predictions", str(tmp_path / "scores.csv"), "--on", "dataset=a"]
    command += ["--sensitivity", "default=0.5", "--by-lower-bound", "--abstain", "0.2"]
    result = CliRunner().invoke(app, command)

    assert result.exit_code == 0, result.output
    written = read_bundle(out)
    assert written.version == next_version(bundle) == "0.0.2"
    assert written.files[WEIGHTS] == bundle.files[WEIGHTS]
    assert written.calibrator is not None
    assert written.calibrator.cases == 240  # of source a, in val
    assert written.operating_point.sensitivity.lower_bound >= 0.5
    assert written.operating_point.abstained > 0
    assert written.conformal is not None
    assert written.site_prevalence is None  # it was known for the old calibrator
    assert written.metrics.evaluations[0].brier is None
    assert written.metrics.evaluations[-1].name == "val dataset=a, cross-fitted"
    assert written.metrics.evaluations[-1].calibrated_on
    assert not written.metrics.evaluations[-1].untouched
    assert read_bundle(bundle.folder) == bundle
    report = json.loads((out / "calibration.json").read_text())
    assert report["after"]["brier"] < report["before"]["brier"]
    assert report["after"]["passes"] is True
    assert report["before"]["passes"] is False
    assert "## Calibration of" in (out / "card.md").read_text()

    again = CliRunner().invoke(app, command)
    assert again.exit_code == 2
    assert "holds a bundle already" in again.stderr


def test_scores_of_another_bundle_or_of_no_row_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    scored(tmp_path / "scores.csv", slope=0.5, intercept=-1.0, bundle=bundle)
    command = ["train", "calibrate", "--bundle", str(bundle.folder), "--out", str(tmp_path / "c")]
    neither = CliRunner().invoke(app, command)
    assert neither.exit_code == 2
    assert "--features STORE or --predictions CSV" in neither.stderr
    command += ["--predictions", str(tmp_path / "scores.csv")]
    nobody = CliRunner().invoke(app, [*command, "--on", "dataset=c"])
    assert nobody.exit_code == 2
    assert "no row" in nobody.stderr
    share = CliRunner().invoke(app, [*command, "--sensitivity", "default=2"])
    assert share.exit_code == 2
    assert "within 0 and 1" in share.stderr

    other = write_small_bundle(tmp_path / "other", intended_use="other tests")
    scored(tmp_path / "scores.csv", slope=0.5, intercept=-1.0, bundle=other)
    of_another = CliRunner().invoke(app, command)
    assert of_another.exit_code == 2
    assert f"scores of another bundle ({other.sha256[:12]})" in of_another.stderr
    scored(tmp_path / "scores.csv", slope=0.5, intercept=-1.0)
    of_nobody = CliRunner().invoke(app, command)
    assert of_nobody.exit_code == 2
    assert "does not say which bundle scored it" in of_nobody.stderr
    assert not (tmp_path / "c").exists()


def test_a_promise_that_so_few_cases_cannot_keep_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    scored(tmp_path / "scores.csv", slope=0.5, intercept=-1.0, n=60, bundle=bundle)
    command = ["train", "calibrate", "--bundle", str(bundle.folder), "--out", str(tmp_path / "c")]
    command += ["--predictions", str(tmp_path / "scores.csv"), "--by-lower-bound"]
    result = CliRunner().invoke(app, [*command, "--sensitivity", "default=0.99"])
    assert result.exit_code == 2
    assert "cannot promise" in result.stderr


def test_abstaining_never_makes_an_operating_point_look_better(
    bundle: Bundle, tmp_path: Path
) -> None:
    scored(tmp_path / "scores.csv", slope=0.5, intercept=-1.0, bundle=bundle)
    table = read_predictions(tmp_path / "scores.csv")
    wanted = {"default": 0.4}

    always, sometimes = (
        calibrate(bundle, table, CalibrationConfig(sensitivities=wanted, abstain_alpha=alpha), "x")
        for alpha in (None, 0.1)
    )

    limits, (point,) = sometimes.abstention, sometimes.operating_points
    assert limits is not None
    silent = np.array([limits.limits.abstains(score) for score in table.scores])
    assert point.abstained == pytest.approx(silent.mean())
    assert point.abstained > 0.2
    p = np.array([sometimes.calibrator.calibrate(score) for score in table.scores])
    flagged = (p >= point.threshold) & ~silent
    assert point.sensitivity.value == pytest.approx(flagged[table.labels].mean())
    assert point.specificity.value == pytest.approx(
        ((p < point.threshold) & ~silent)[~table.labels].mean()
    )
    assert point.sensitivity.n == always.operating_points[0].sensitivity.n == table.labels.sum()
    with pytest.raises(TrainingDataError, match=r"get no opinion, so no threshold flags 0.9"):
        calibrate(
            bundle, table, CalibrationConfig(sensitivities={"x": 0.9}, abstain_alpha=0.1), "x"
        )


def test_a_new_version_needs_a_new_number(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is the version it has"):
        write_new_version(bundle, tmp_path / "new", {"version": bundle.version}, "## None")


def test_true_probabilities_pass_and_false_ones_do_not() -> None:
    generator = np.random.default_rng(0)
    p = generator.uniform(0.05, 0.95, size=600)
    labels = generator.random(600) < p

    assert calibration_figures("true", labels, p).passes
    assert not calibration_figures("too sure", labels, np.where(p > 0.5, 0.95, 0.05)).passes
