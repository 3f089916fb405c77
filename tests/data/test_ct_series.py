"""Real chest CT: which series become a volume, and what is said of them."""

import csv
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from common.errors import NotEligibleError
from model.ct.faults import Fault, Remark
from model.ct.pipeline import load_ct_pipeline
from model.ct.series import group_by_series, read_series, read_volume
from model.ct.slice_examination import examine_slice
from model.eligibility import Policy
from model.training.nifti_series import Described, read_nifti, write_series
from tests.ct_bundles import write_ct_bundle

pytestmark = pytest.mark.data


def test_the_series_is_read_as_a_part_of_the_chest_that_the_volume_holds(test_data: Path) -> None:
    series = read_series((test_data / "dicom" / "ct_series").iterdir())

    assert len(series) == 24
    assert series.stack.spacing_mm == pytest.approx(2.0)
    assert {remark.split(":")[0] for remark in series.remarks} == {Remark.PARTIAL, Remark.SHORT}
    whole, _ = read_nifti(test_data / "ct" / "covid_ct_md" / "P001.nii.gz")
    heights = heights_mm(test_data, "P001")
    first = series.stack.slices[0]
    (same,) = np.flatnonzero(np.abs(heights - first.position_mm[2]) < 0.1)
    here = next(series.read_hounsfield())
    shrunk = cv2.resize(np.clip(here, -1024, 1024), (256, 256), interpolation=cv2.INTER_AREA)
    assert np.abs(shrunk - whole[same]).mean() < 1  # rounding; another slice is off by tens


def test_a_real_series_with_one_file_gone_is_refused(test_data: Path, tmp_path: Path) -> None:
    for path in sorted((test_data / "dicom" / "ct_series").iterdir()):
        shutil.copy(path, tmp_path)
    (tmp_path / "IM0010.dcm").unlink()

    with pytest.raises(NotEligibleError, match=f"{Fault.MISSING}: about 1, .* 2 mm apart"):
        read_series(tmp_path.iterdir())


@pytest.mark.parametrize("patient", ["P001", "cap002", "normal001"])
def test_a_volume_written_as_dicom_is_read_back_and_scored(
    patient: str, test_data: Path, tmp_path: Path
) -> None:
    volume, spacing_mm = read_nifti(test_data / "ct" / "covid_ct_md" / f"{patient}.nii.gz")
    heights = heights_mm(test_data, patient)
    described = Described(patient, "F", "070Y", tuple(heights))
    paths = write_series(volume, spacing_mm, described, tmp_path / "series")

    series = read_series(paths)

    assert series.remarks == ()
    assert series.stack.spacing_mm == pytest.approx(4.0)
    np.testing.assert_array_equal(read_volume(series), volume)
    pipeline = load_ct_pipeline(write_ct_bundle(tmp_path / "bundle"), "cpu")  # random weights
    examined = (
        examine_slice(one.path, pipeline.bundle, Policy(), Path(), 0) for one in series.stack.slices
    )
    prediction = pipeline.predict(one.pixels for one in examined if one.pixels is not None)
    assert prediction.heatmap.shape[0] == len(volume)
    assert np.isfinite(prediction.score)


def test_no_other_files_of_the_collection_pass_for_a_series(test_data: Path) -> None:
    accepted, refused = [], {}
    for uid, paths in group_by_series(sorted((test_data / "dicom" / "files").iterdir())).items():
        try:
            accepted.append(read_series(paths))
        except NotEligibleError as error:
            refused[uid] = str(error).split(":")[0]
    assert {str(Fault.NO_SLICES), str(Fault.TOO_FEW)} <= set(refused.values())
    assert set(refused.values()) <= set(Fault)
    for series in accepted:
        assert len(series) >= 3


def heights_mm(test_data: Path, patient: str) -> np.ndarray:
    """Give the height of each slice of a volume, from the table beside it."""
    with (test_data / "ct" / "slice_labels.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if patient in row["file"]]
    return np.array([float(row["slice_location"]) for row in rows])
