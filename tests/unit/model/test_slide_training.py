"""Training on slides: one label a slide is enough, and a run goes on where it stopped."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from common.errors import TrainingDataError
from model.bundles import Bundle
from model.execution import choose_device
from model.slide.dicom_writing import write_slide
from model.slide.pipeline import load_slide_pipeline
from model.slide.whole_slide import open_slide
from model.training.manifests import Manifest, ManifestRow, write_manifest
from model.training.slide import SlideTraining, train_slides
from model.training.slide_proof import generate_set, measure
from tests.slides import draw_pink_square, write_random_slide_bundle

BLUE = (90, 70, 150)
TRAINING = SlideTraining(epochs=12, learning_rate=3e-3, tiles_per_step=16, slides_per_update=2)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_random_slide_bundle(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Pink squares; those with label 1 have a blue spot somewhere in them."""
    folder = tmp_path_factory.mktemp("slides")
    rng = np.random.default_rng(4)
    rows = []
    for number, split in enumerate(["train"] * 8 + ["val"] * 4 + ["test"] * 6):
        pixels = draw_pink_square((256, 256), 0, 0, 256)
        if number % 2:
            top, left = rng.integers(16, 190, 2)
            pixels[top : top + 50, left : left + 50] = BLUE
        write_slide(folder / str(number), pixels, mpp_um=0.5, frame_px=128, reductions=(1,))
        rows.append(ManifestRow(folder / str(number), bool(number % 2), str(number), split))
    return write_manifest(folder / "slides.csv", rows)


def train(
    manifest: Manifest,
    encoder: Bundle,
    folder: Path,
    training: SlideTraining,
    test_log: Path | None = None,
) -> Bundle:
    torch.set_num_threads(1)
    device = choose_device("cpu")
    return train_slides(manifest, encoder, folder, training, device=device, test_log=test_log)


def test_one_label_a_slide_teaches_what_and_where(
    manifest: Manifest, encoder: Bundle, tmp_path: Path
) -> None:
    bundle = train(manifest, encoder, tmp_path, TRAINING, tmp_path / "test_log.csv")

    result = json.loads((tmp_path / "result.json").read_text())
    assert result["test"]["auc"] > 0.9
    _, look = (tmp_path / "test_log.csv").read_text().splitlines()
    assert f"test: slides of the manifest,3,3,{result['test']['auc']:.4f}" in look
    assert "calibrator" in bundle.missing()
    assert "Not for clinical use" in (bundle.folder / "card.md").read_text()
    assert bundle.training["data"]["manifest_fingerprint"] == manifest.fingerprint
    pipeline = load_slide_pipeline(bundle, "cpu")
    scores = {}
    for row in manifest.of("test"):
        with open_slide(sorted(row.path.iterdir())) as slide:
            reading = pipeline.read(slide, tmp_path / "map.raw")
        scores[row.path.name] = (row.label, reading.score)
    flagged = [score for label, score in scores.values() if label]
    others = [score for label, score in scores.values() if not label]
    assert np.mean(flagged) > np.mean(others)


def test_a_run_that_was_stopped_ends_with_the_same_weights(
    manifest: Manifest, encoder: Bundle, tmp_path: Path
) -> None:
    short = TRAINING.model_copy(update={"epochs": 1})
    long = TRAINING.model_copy(update={"epochs": 3})
    train(manifest, encoder, tmp_path / "stopped", short)

    resumed = train(manifest, encoder, tmp_path / "stopped", long)
    straight = train(manifest, encoder, tmp_path / "straight", long)

    one, other = load_file(resumed.weights), load_file(straight.weights)
    assert all(torch.equal(one[name], other[name]) for name in other)
    history = json.loads((tmp_path / "stopped" / "history.json").read_text())
    assert [row["epoch"] for row in history] == [1, 2, 3]


def test_a_slide_that_cannot_be_used_stops_the_run_and_is_named(
    manifest: Manifest, encoder: Bundle, tmp_path: Path
) -> None:
    blank = tmp_path / "blank"
    write_slide(blank, np.full((300, 300, 3), 244, np.uint8), mpp_um=0.5)
    rows = (*manifest.rows, ManifestRow(blank, False, "blank", "train"))
    with_blank = write_manifest(tmp_path / "slides.csv", rows)

    with pytest.raises(TrainingDataError, match="blank: no tissue found"):
        train(with_blank, encoder, tmp_path / "run", TRAINING)


def test_training_needs_both_classes(manifest: Manifest, encoder: Bundle, tmp_path: Path) -> None:
    rows = [row for row in manifest.rows if row.label or row.split != "val"]

    with pytest.raises(TrainingDataError, match="val needs slides with label 0 and 1"):
        train(write_manifest(tmp_path / "slides.csv", rows), encoder, tmp_path / "run", TRAINING)


def test_the_proof_knows_where_the_tumour_was_drawn(encoder: Bundle, tmp_path: Path) -> None:
    drawn = generate_set(tmp_path / "slides", {"test": 2}, 640)

    proof = measure(encoder, drawn, "cpu")

    assert proof["test"]["positives"] == proof["test"]["negatives"] == 1
    assert proof["hottest_cell_on_tumour"][1] == 1
    assert 0.01 < proof["chance_of_a_hit"] < 0.6
    assert proof["made_of"] == "generated slides: drawings, no tissue"
