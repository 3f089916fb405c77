"""The real lesion boxes: how many there are, and that the shipped map adds up on them."""

from pathlib import Path

import pytest

from model.bundles import SHIPPED, find_bundles
from model.evaluation.lesion_boxes import box_cases, read_boxed_images
from model.training.ablation_features import encode_stages
from model.training.localise import left_out

pytestmark = pytest.mark.data


def test_the_boxes_are_those_that_the_tables_speak_of(test_data: Path) -> None:
    images = read_boxed_images(test_data / "boxes" / "boxes.csv")
    cases = box_cases(images)

    assert len(images) == 50
    assert len(cases) == 54
    assert len({case.patient_id for case in cases}) == 48
    assert sum(len(image.boxes) for image in images if image.split == "train") == 46


def test_the_shipped_bundle_adds_up_and_never_saw_a_patient_with_boxes(test_data: Path) -> None:
    chest = [bundle for bundle in find_bundles(SHIPPED) if bundle.pipeline == "chest_xray"]
    images = read_boxed_images(test_data / "boxes" / "boxes.csv")

    features = encode_stages(chest[-1], [image.path for image in images[:4]], "cpu")

    assert features.additive_error < 1e-5
    assert "out of sample" in left_out(chest[-1], images)
