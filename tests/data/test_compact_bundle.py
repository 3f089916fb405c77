"""The shipped model for radiographs still measures what its card says."""

from pathlib import Path

import numpy as np
import pytest

from model.bundles import SHIPPED, Bundle, find_bundles
from model.evaluation.evaluate import evaluate
from model.pipelines import load_pipeline
from model.training.cases import box_images, box_patients, of_dataset, read_cases
from model.training.compact import select_training_cases
from model.training.radiographs import load_prepared

pytestmark = pytest.mark.data

BATCH = 33


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return next(bundle for bundle in find_bundles(SHIPPED) if bundle.pipeline == "chest_xray")


def test_the_bundle_measures_on_nih_val_what_its_description_says(
    bundle: Bundle, test_data: Path
) -> None:
    cases = read_cases(test_data / "cxr")
    val = [cases[row] for row in of_dataset(cases, {"nih_cxr14"}, {"val"}, adult=True)]
    images = load_prepared(val, bundle.preprocessing)
    pipeline = load_pipeline(bundle, "cpu")
    scores = np.array(
        [
            prediction.score
            for start in range(0, len(images), BATCH)
            for prediction in pipeline.predict(images[start : start + BATCH])
        ]
    )
    labels = np.array([case.abnormal for case in val])
    assert bundle.calibrator is not None

    measured = evaluate("NIH val, adults", scores, labels, bundle.calibrator, bundle.threshold)

    stated = next(row for row in bundle.metrics.evaluations if row.name == measured.name)
    assert measured.auc is not None
    assert measured.auc > 0.75
    assert measured.auc == pytest.approx(stated.auc, abs=1e-3)
    assert measured.brier == pytest.approx(stated.brier, abs=1e-3)
    assert measured.sensitivity == pytest.approx(stated.sensitivity, abs=1e-9)


def test_no_patient_with_boxes_and_no_held_out_image_was_trained_on(test_data: Path) -> None:
    boxes = test_data / "boxes" / "boxes.csv"
    cases = read_cases(test_data / "cxr")

    selection = select_training_cases(cases, boxes)

    trained_on = {case.path.name for case in selection.train}
    assert {case.split for case in selection.train} == {"train"}
    assert not trained_on & box_images(boxes)
    assert not {case.patient_id for case in selection.train} & box_patients(boxes)
    left_out = sum(case.split == "train" for case in cases) - len(selection.train)
    assert left_out == sum(selection.left_out.values()) > 200


def test_the_second_phase_leaves_out_what_two_sources_label_differently(test_data: Path) -> None:
    boxes = test_data / "boxes" / "boxes.csv"
    cases = read_cases(test_data / "cxr")

    selection = select_training_cases(cases, boxes, disputed=False)

    assert not any(case.disputed for case in selection.train)
    assert not any(case.disputed for case in cases if case.split != "train")
    assert selection.left_out["disputed"] > 100
    left_out = sum(case.split == "train" for case in cases) - len(selection.train)
    assert left_out == sum(selection.left_out.values())
