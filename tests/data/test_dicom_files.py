"""Every real DICOM file beside the checkout: an image, or an error of ours."""

import csv
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from common.errors import ImageError, SenderError
from common.pixels.frames import read_geometry, read_stored_values
from common.pixels.header import read_header
from common.pixels.reading import read_pixels
from model.eligibility import EligibilityRules, Policy, judge

pytestmark = pytest.mark.data

# A dog of five years, filed as a chest radiograph.
NOT_AN_ADULTS_CHEST = "files/highdicom__data__test_files__dx_image.dcm"
ACCEPTING = Policy(unknown_age="accept", accept_secondary_capture=True)


@pytest.fixture(scope="module")
def rows(test_data: Path) -> list[dict[str, str]]:
    with (test_data / "dicom" / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_file_gives_an_image_or_an_error_of_ours(
    rows: list[dict[str, str]], test_data: Path
) -> None:
    images = 0
    for row in rows:
        try:
            image = read_pixels(test_data / "dicom" / row["file"])
        except (ImageError, SenderError):
            assert row["category"] != "cxr", row["file"]
            continue
        images += 1
        assert image.dtype == np.float32
        assert image.shape == (int(row["rows"]), int(row["cols"]))
        assert 0 <= image.min() <= image.max() <= 1
    assert images > 180


def test_grey_frames_hold_the_values_that_another_decoder_finds(
    rows: list[dict[str, str]], test_data: Path
) -> None:
    compared = 0
    for row in rows:
        path = test_data / "dicom" / row["file"]
        try:
            header = read_header(path)
            geometry = read_geometry(header)
            stored = read_stored_values(path, header, geometry).astype(np.int64)
        except (ImageError, SenderError):
            continue
        theirs = decode_elsewhere(path)
        if theirs is None:
            continue
        if geometry.is_signed:
            stored[stored >= 1 << (geometry.bits_stored - 1)] -= 1 << geometry.bits_stored
        np.testing.assert_array_equal(stored, theirs, err_msg=row["file"])
        compared += 1
    assert compared > 150


def decode_elsewhere(path: Path) -> np.ndarray | None:
    """Decode with GDCM and pydicom; None where they cannot."""
    try:
        dataset: Dataset = dcmread(path, force=True)
        return dataset.pixel_array
    except (AttributeError, NotImplementedError, RuntimeError):
        return None  # no transfer syntax is named, or a syntax that GDCM cannot decode


def test_adult_frontal_chest_radiographs_are_eligible_and_nothing_else_is(
    rows: list[dict[str, str]], test_data: Path
) -> None:
    eligible = set()
    for row in rows:
        path = test_data / "dicom" / row["file"]
        try:
            if judge(read_header(path), EligibilityRules(), ACCEPTING).eligible:
                read_pixels(path)
                eligible.add(row["file"])
        except (ImageError, SenderError):
            continue
    chests = {row["file"] for row in rows if row["category"] == "cxr"}
    assert eligible == chests - {NOT_AN_ADULTS_CHEST}
    assert len(eligible) == 11
