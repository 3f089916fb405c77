"""``firstread train evaluate`` from tables of predictions to a page that needs nothing else."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from firstread.cli import app
from model.bundles import read_bundle
from model.evaluation.discrimination import auc, paired_auc_difference
from model.evaluation.prediction_table import (
    PredictionTable,
    read_predictions,
    share_cases,
    write_predictions,
)
from model.evaluation.strata import age_band
from model.evaluation.test_log import COLUMNS, Look, log_looks
from model.measured import Metrics
from tests.blob_manifest import write_blob_manifest
from tests.small_bundle import EVALUATION, write_small_bundle


def made_up(name: str, noise: float, n: int = 120, *, test: int = 20) -> PredictionTable:
    """Make a model's predictions of one fixed set of cases; ``noise`` is how bad it is."""
    cases = np.random.default_rng(0)
    labels = cases.random(n) < 0.5
    signal = cases.normal(size=n) + 2 * labels
    own = np.random.default_rng(int(noise * 100))
    scores = signal + noise * own.normal(size=n)
    return PredictionTable(
        name=name,
        files=tuple(f"/images/{number}.png" for number in range(n)),
        labels=labels,
        groups=np.array([f"patient-{number // 2}" for number in range(n)]),
        splits=np.array(["test" if number < test else "val" for number in range(n)]),
        scores=scores,
        probabilities=1 / (1 + np.exp(-(scores - 0.5))),
        columns={
            "sex": np.array(["FM"[number % 2] for number in range(n)]),
            "age": np.array([str(18 + number % 70) for number in range(n)]),
        },
    )


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("tables")
    paths = [folder / "good.csv", folder / "bad.csv"]
    write_predictions(paths[0], made_up("good", 0.2))
    write_predictions(paths[1], made_up("bad", 3.0))
    return paths


@pytest.fixture(scope="module")
def report(tables: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    done = evaluate(*tables, "--out", out, "--threshold", "default=0.5")
    assert done.exit_code == 0, done.output
    return out


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["train", "evaluate", *map(str, arguments)])


def test_a_report_says_what_the_tables_hold(tables: list[Path], report: Path) -> None:
    said = json.loads((report / "report.json").read_text())
    val = [read_predictions(path).take(np.arange(20, 120)) for path in tables]
    good, bad = said["models"]
    assert said["cases"] == {
        "split": "val",
        "cases": 100,
        "abnormal": int(val[0].labels.sum()),
        "groups": 50,
        "left_out": 0,
    }
    assert good["overall"]["auc"]["value"] == pytest.approx(auc(val[0].labels, val[0].scores))
    (comparison,) = said["comparisons"]
    expected = paired_auc_difference(val[0].labels, val[0].scores, val[1].scores)
    assert comparison["difference"]["value"] == pytest.approx(expected.difference)
    assert comparison["p_value"] == pytest.approx(expected.p_value)
    assert comparison["p_value"] < 0.01
    assert (
        bad["overall"]["calibration"]["expected_error"]
        > (bad["overall"]["calibration"]["expected_error_high"])
    )
    (point,) = good["overall"]["operating_points"]
    assert point["sensitivity"]["n"] == val[0].labels.sum()
    strata = {(one["column"], one["value"]) for one in good["strata"]}
    assert {("sex", "F"), ("age", "18 to 39"), ("age", "80 and over")} <= strata
    assert sum(one["figures"]["cases"] for one in good["strata"] if one["column"] == "age") == 100


def test_the_page_needs_no_other_file_and_never_says_normal(
    report: Path,
) -> None:
    page = (report / "report.html").read_text()

    assert not re.findall(r"(?:src|href)=|url\(|@import|<script|<link", page)
    assert page.count("<figure>") == 3
    assert "Not for clinical use" in page
    assert "The two models differ." in page
    assert not re.search(r"\bnormal", page.partition("</style>")[2], re.IGNORECASE)
    assert "&ge;" in page


def test_test_is_measured_only_when_asked_for_and_every_look_is_logged(
    tables: list[Path], tmp_path: Path
) -> None:
    log = tmp_path / "test_log.csv"
    refused = evaluate(tables[0], "--out", tmp_path / "report", "--split", "test")
    assert refused.exit_code == 2
    assert "--look-at-test" in refused.output
    assert not (tmp_path / "report").exists()

    for _ in range(2):
        done = evaluate(
            tables[0], "--out", tmp_path / "report", "--look-at-test", "--test-log", log
        )
        assert done.exit_code == 0, done.output

    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["bundle"] for row in rows] == ["good", "good"]
    table = read_predictions(tables[0]).take(np.arange(20))
    assert float(rows[0]["auc"]) == pytest.approx(auc(table.labels, table.scores), abs=1e-4)
    assert int(rows[0]["abnormal"]) + int(rows[0]["not_abnormal"]) == 20


def test_a_bundle_predicts_the_images_of_a_manifest_at_its_own_operating_points(
    tmp_path: Path,
) -> None:
    manifest = write_blob_manifest(tmp_path / "blobs", train=2, val=12)
    bundle = write_small_bundle(tmp_path / "small")

    done = evaluate(
        *("--bundle", bundle.folder, "--manifest", manifest.path, "--out", tmp_path / "report")
    )

    assert done.exit_code == 0, done.output
    (model,) = json.loads((tmp_path / "report" / "report.json").read_text())["models"]
    assert model["name"] == "small-0.0.1"
    assert model["overall"]["cases"] == 12
    assert [one["threshold"] for one in model["overall"]["operating_points"]] == [0.5]


def test_a_look_at_test_completes_a_calibrated_bundle_and_a_val_of_any_size_does_not(
    tmp_path: Path,
) -> None:
    manifest = write_blob_manifest(tmp_path / "blobs", train=2, val=2, test=200)
    on_val = EVALUATION.model_copy(update={"calibrated_on": True})
    start = write_small_bundle(tmp_path / "small", metrics=Metrics(evaluations=(on_val,)))
    assert [part[:10] for part in start.missing()] == ["evaluation"]
    command = [
        "--bundle",
        start.folder,
        "--manifest",
        manifest.path,
        "--complete",
        tmp_path / "new",
    ]
    command += ["--out", tmp_path / "report", "--test-log", tmp_path / "log.csv"]

    refused = evaluate(*command)
    done = evaluate(*command, "--look-at-test")

    assert refused.exit_code == 2
    assert "--complete needs --look-at-test" in refused.output
    assert done.exit_code == 0, done.output
    bundle = read_bundle(tmp_path / "new")
    assert bundle.missing() == []
    assert bundle.version == "0.0.2"
    assert bundle.files["weights.safetensors"] == start.files["weights.safetensors"]
    row = bundle.metrics.evaluations[-1]
    assert (row.name, row.abnormal, row.not_abnormal) == ("manifest test", 100, 100)
    assert row.untouched
    assert "nobody has compared their patients" in row.note
    assert "## Evaluation of" in (tmp_path / "new" / "card.md").read_text()
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 2


def test_a_bundle_that_may_abstain_is_measured_with_its_silences(tmp_path: Path) -> None:
    manifest = write_blob_manifest(tmp_path / "blobs", train=2, val=40)
    plain = write_small_bundle(tmp_path / "plain")
    silent = write_small_bundle(tmp_path / "silent", name="silent", abstain_between=(0.0, 0.999))

    done = evaluate(
        *("--bundle", plain.folder, "--bundle", silent.folder, "--manifest", manifest.path),
        *("--out", tmp_path / "report"),
    )

    assert done.exit_code == 0, done.output
    models = json.loads((tmp_path / "report" / "report.json").read_text())["models"]
    (always,), (never,) = (one["overall"]["operating_points"] for one in models)
    assert always["abstained"] == 0.0
    assert always["sensitivity"]["value"] + always["specificity"]["value"] > 0
    assert (never["abstained"], never["flag_rate"]) == (1.0, 0.0)
    assert never["sensitivity"]["value"] == never["specificity"]["value"] == 0.0
    page = (tmp_path / "report" / "report.html").read_text()
    assert "neither flagged nor cleared" in page
    assert "small-0.0.1: default" in page
    assert "silent-0.0.1: default</title>" not in page


def test_an_old_log_of_looks_takes_the_new_columns_and_keeps_its_lines(tmp_path: Path) -> None:
    log = tmp_path / "test_log.csv"
    old = "2026-11-22,a,0123,cases,1,2,0.5,0.4,0.6,,,abc"
    log.write_text(f"{','.join(COLUMNS[:12])}\n{old}\n")

    log_looks(log, Look("localise", "b", "f" * 64, "4 boxes", None, None, "def", figures="hit 0.2"))

    assert log.read_text().splitlines()[1] == old
    with log.open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["commit"], first["job"]) == ("abc", None)
    assert (second["job"], second["figures"], second["auc"]) == ("localise", "hit 0.2", "")
    assert second["weights_sha256"] == "f" * 16


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file,label\na,1\n", "line 1: no column group, split, score, probability"),
        ("file,label,group,split,score,probability\na,2,g,val,1,\n", "line 2, column label"),
        ("file,label,group,split,score,probability\na,1,g,val,high,\n", "line 2, column score"),
        ("file,label,group,split,score,probability\na,1,g,val,nan,\n", "column score: no finite"),
        ("file,label,group,split,score,probability\na,1,g,val,1,1.5\n", "column probability: not"),
        ("file,label,group,split,score,probability\na,1,g,train,1,\n", "no row of split val"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_one_line(
    text: str, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text(text)

    done = evaluate(path, "--out", tmp_path / "report")

    assert done.exit_code == 2
    assert says in done.output
    assert done.output.count("\n") == 1


def test_tables_are_brought_to_the_images_that_both_hold() -> None:
    first, second = made_up("first", 0.2), made_up("second", 1.0).take(np.arange(119, 9, -1))
    elsewhere = PredictionTable(
        **{**vars(second), "files": tuple(f"/copy{file}" for file in second.files)}
    )

    for other in (second, elsewhere):
        shared = share_cases([first, other])

        assert len(shared[0].files) == 110
        names = [[Path(file).name for file in table.files] for table in shared]
        assert names[0] == names[1]
        assert np.array_equal(shared[0].labels, shared[1].labels)


def test_a_table_reads_back_as_it_was_written(tmp_path: Path) -> None:
    table = made_up("table", 0.2)
    silent = np.arange(120) % 3 == 0
    table = replace(table, bundle_sha256="ab12", abstained=silent)
    write_predictions(tmp_path / "table.csv", table)

    again = read_predictions(tmp_path / "table.csv")

    assert again.files == table.files
    assert np.array_equal(again.scores, table.scores)
    assert again.probabilities is not None
    assert table.probabilities is not None
    assert np.array_equal(again.probabilities, table.probabilities)
    assert again.bundle_sha256 == "ab12"
    assert again.abstained is not None
    assert np.array_equal(again.abstained, silent)
    assert again.columns.keys() == table.columns.keys()


@pytest.mark.parametrize(
    ("text", "band"),
    [("17", "under 18"), ("054Y", "40 to 59"), ("80.5", "80 and over"), ("", "unknown")],
)
def test_ages_fall_into_bands(text: str, band: str) -> None:
    assert age_band(text) == band
