"""The manifest of the real radiographs: adults, their splits, and no boxed patient in train."""

from pathlib import Path

import pytest

from model.training.cases import box_images
from model.training.cxr_manifest import cxr_manifest
from model.training.manifests import write_manifest

pytestmark = pytest.mark.data


def test_nih_adults_of_val_and_test_are_those_that_every_figure_is_given_on(
    test_data: Path, tmp_path: Path
) -> None:
    boxes = test_data / "boxes" / "boxes.csv"
    made = cxr_manifest(test_data / "cxr", datasets=["nih_cxr14"], boxes=boxes)
    manifest = write_manifest(tmp_path / "nih.csv", made.rows)  # refuses a group in two splits

    assert made.missing == []
    counted = {
        split: (sum(row.label for row in manifest.of(split)), len(manifest.of(split)))
        for split in ("val", "test")
    }
    assert counted == {"val": (80, 132), "test": (81, 142)}
    assert not {row.path.name for row in manifest.of("train")} & box_images(boxes)
