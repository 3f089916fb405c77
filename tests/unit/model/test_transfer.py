"""Transfer: what is saved answers as the library does, and no fold sees what it is asked about."""

import csv
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner

from common.errors import TrainingDataError
from firstread.cli import app
from model.evaluation.prediction_table import read_predictions
from model.training.classifier_fitting import fit_classifier, library_model
from model.training.classifiers import (
    ForestClassifier,
    NeighbourClassifier,
    read_classifier,
    write_classifier,
)
from model.training.feature_encoding import encode_manifest
from model.training.feature_store import FeatureStore
from model.training.manifests import ManifestRow, write_manifest
from model.training.transfer import cross_validate, transfer
from tests.small_bundle import write_small_bundle

CHOICES = [
    ("svm", {"kernel": "linear", "C": 0.1}),
    ("svm", {"kernel": "rbf", "C": 1.0, "width": 0.7}),
    ("logistic_regression", {"C": 0.3}),
    ("knn", {"neighbours": 7, "by_distance": False}),
    ("knn", {"neighbours": 7, "by_distance": True}),
    ("random_forest", {"trees": 12, "leaf": 2}),
    ("mlp", {"hidden": 8, "alpha": 1.0, "epochs": 20}),
]


def made_up(n: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Give features (N, 6) of several scales; two of them tell something of the label."""
    generator = np.random.default_rng(seed)
    y = generator.random(n) < 0.4
    x = generator.normal(size=(n, 6))
    x[:, 0] += y
    x[:, 1] *= 1 + y
    return (x * [1, 5, 1, 1, 1, 0.1] + 3).astype(np.float32), y


@pytest.mark.parametrize(("name", "choices"), CHOICES)
def test_what_is_saved_answers_as_the_library_does(
    tmp_path: Path, name: str, choices: dict[str, object]
) -> None:
    (x, y), (unseen, _) = made_up(150, 0), made_up(1100, 1)
    write_classifier(tmp_path / "c.safetensors", fit_classifier(name, x, y, choices, 5), {"a": "b"})
    ours, about = read_classifier(tmp_path / "c.safetensors")
    assert about == {"a": "b"}

    theirs = library_model(name, x.shape[1], choices, 5)
    if name == "random_forest":
        theirs.fit(x, y)
        assert isinstance(ours, ForestClassifier)
        shares = theirs.predict_proba(unseen)[:, 1]
        np.testing.assert_allclose(ours.share(unseen), shares, atol=1e-9)
        return
    scaler = StandardScaler().fit(x.astype(np.float64))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs.fit(scaler.transform(x.astype(np.float64)), y)
    scaled = scaler.transform(unseen.astype(np.float64))
    if name == "knn":
        assert isinstance(ours, NeighbourClassifier)
        np.testing.assert_allclose(
            ours.share(unseen), theirs.predict_proba(scaled)[:, 1], atol=1e-9
        )
    elif name == "mlp":
        ours_p = 1 / (1 + np.exp(-ours.score(unseen)))
        np.testing.assert_allclose(ours_p, theirs.predict_proba(scaled)[:, 1], atol=1e-9)
    else:
        np.testing.assert_allclose(ours.score(unseen), theirs.decision_function(scaled), atol=1e-9)


def test_a_neighbour_at_no_distance_decides_alone() -> None:
    x, y = made_up(40, 2)
    classifier = fit_classifier("knn", x, y, {"neighbours": 9, "by_distance": True}, 0)
    assert isinstance(classifier, NeighbourClassifier)
    np.testing.assert_allclose(classifier.share(x), y, atol=1e-5)


def test_a_file_that_holds_no_classifier_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.safetensors").write_bytes(b"nothing")
    with pytest.raises(TrainingDataError, match="holds no classifier"):
        read_classifier(tmp_path / "c.safetensors")


def encoded(folder: Path, images: list[NDArray[np.uint8]], rows: list[ManifestRow]) -> FeatureStore:
    """Write images and a manifest, and encode them with random weights."""
    for image, row in zip(images, rows, strict=True):
        Image.fromarray(image).save(folder / row.path)
    rows = [ManifestRow(folder / r.path, r.label, r.group, r.split, r.columns) for r in rows]
    manifest = write_manifest(folder / "manifest.csv", rows)
    bundle = write_small_bundle(folder / "bundle")
    store = encode_manifest(manifest, bundle, folder / "features", "cpu", spatial=False)
    assert store is not None
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Features of 132 drawn images from two sources, two a patient; abnormal has a square."""
    generator = np.random.default_rng(0)
    images: list[NDArray[np.uint8]] = []
    rows: list[ManifestRow] = []
    for number in range(132):
        patient = number // 2
        abnormal = patient % 2 == 0
        pixels = generator.integers(0, 120, (64, 64), dtype=np.uint8)
        if abnormal == (generator.random() < 0.9):
            pixels[20:40, 20:40] += np.uint8(60)
        images.append(pixels)
        split = ("train", "train", "train", "val", "train", "test")[patient // 2 % 6]
        source = "ab"[patient // 12 % 2]
        name = Path(f"{number}.png")
        rows.append(ManifestRow(name, abnormal, f"p{patient}", split, {"dataset": source}))
    return encoded(tmp_path_factory.mktemp("transfer"), images, rows)


def test_transfer_writes_predictions_of_val_and_leaves_test_alone(
    store: FeatureStore, tmp_path: Path
) -> None:
    command = ["train", "transfer", "--features", str(store.folder), "--out", str(tmp_path / "t")]
    command += ["--classifier", "logistic_regression", "--test-log", str(tmp_path / "log.csv")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    table = read_predictions(tmp_path / "t" / "logistic_regression.csv")
    assert set(table.splits) == {"val"}
    assert table.probabilities is not None
    assert len(table.files) == len(store.rows_of("val"))
    assert not (tmp_path / "log.csv").exists()
    summary = json.loads((tmp_path / "t" / "transfer.json").read_text())
    assert summary["classifiers"][0]["cv_auc"] > 0.6
    assert not list((tmp_path / "t").glob("*.pkl"))

    weights = (tmp_path / "t" / "logistic_regression.safetensors").stat().st_mtime_ns
    looked = CliRunner().invoke(app, [*command, "--look-at-test"])
    assert looked.exit_code == 0, looked.output
    assert "test, logistic_regression: AUC" in looked.stdout
    with (tmp_path / "log.csv").open(newline="") as file:
        (line,) = csv.DictReader(file)
    assert int(line["abnormal"]) + int(line["not_abnormal"]) == len(store.rows_of("test"))
    assert (tmp_path / "t" / "logistic_regression.safetensors").stat().st_mtime_ns == weights


def test_a_patient_s_twin_images_never_stand_on_both_sides_of_a_fold() -> None:
    generator = np.random.default_rng(4)
    x = np.repeat(generator.normal(size=(90, 40)).astype(np.float32), 2, axis=0)
    y = np.repeat(generator.random(90) < 0.5, 2)  # by chance: only a twin could tell it
    groups = np.array([f"p{row // 2}" for row in range(180)])

    tried, _ = cross_validate("knn", x, y, groups, np.ones(180, dtype=bool))

    assert max(one["cv_auc"] for one in tried) < 0.7
    leaky, _ = cross_validate("knn", x, y, np.arange(180).astype(str), np.ones(180, dtype=bool))
    assert max(one["cv_auc"] for one in leaky) > 0.8


def test_only_the_rows_asked_for_are_trained_and_measured_on(
    store: FeatureStore, tmp_path: Path
) -> None:
    (result,) = transfer(
        store,
        tmp_path,
        classifiers=["knn"],
        trained_on={"dataset": "a"},
        measured_on={"dataset": "a"},
    )
    expected = [r for r in store.rows if r.split == "train" and r.columns["dataset"] == "a"]
    assert result.train == len(expected)
    table = read_predictions(tmp_path / "knn.csv")
    assert set(table.columns["dataset"]) == {"a"}
    assert "dataset=a" in result.calibrator.fitted_on
    with pytest.raises(TrainingDataError, match="no column 'site'"):
        transfer(store, tmp_path / "other", measured_on={"site": "x"})
