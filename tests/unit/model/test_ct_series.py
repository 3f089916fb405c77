"""A CT series becomes a volume in the order of its places, or says why it does not."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import (
    EnhancedCTImageStorage,
    MRImageStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from common.errors import NotEligibleError, OversizedImageError, UnreadablePixelsError
from model.ct.faults import Fault, Remark
from model.ct.hounsfield import AIR_HU, read_hounsfield
from model.ct.series import group_by_series, read_series, read_volume
from tests.ct_series import COLUMNS, ROWS, SPACING_MM, make_body, make_slices, tilted, write_slices
from tests.ct_series import STEP_MM as STEP

COUNT = 40  # 200 mm: a whole chest


def test_slices_are_ordered_from_the_feet_to_the_head_in_hounsfield_units(tmp_path: Path) -> None:
    paths = write_slices(make_slices(COUNT), tmp_path)
    random.Random(3).shuffle(paths)

    series = read_series(paths)
    volume = read_volume(series)

    assert series.remarks == ()
    assert volume.dtype == np.float32
    np.testing.assert_array_equal(volume, [make_body(number) for number in range(COUNT)])
    assert series.stack.spacing_mm == pytest.approx(STEP)
    corner = series.stack.to_patient_mm @ [COLUMNS - 1, ROWS - 1, COUNT - 1, 1]
    expected = [-20 + 19 * SPACING_MM[1], -18 + 23 * SPACING_MM[0], 100 + 39 * STEP, 1]
    np.testing.assert_allclose(corner, expected)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    slices = make_slices(12, ImageOrientationPatient=[-1, 0, 0, 0, 1, 0])  # feet first
    return write_slices(slices, tmp_path_factory.mktemp("series"))


@settings(max_examples=12, deadline=None)
@given(order=st.permutations(range(12)))
def test_no_order_of_the_files_changes_the_volume(written: list[Path], order: list[int]) -> None:
    plain, shuffled = read_series(written), read_series([written[place] for place in order])

    assert [one.path for one in shuffled.stack.slices] == written
    np.testing.assert_array_equal(shuffled.stack.to_patient_mm, plain.stack.to_patient_mm)
    assert shuffled.remarks == plain.remarks


@settings(max_examples=12, deadline=None)
@given(left_out=st.sets(st.integers(1, 10), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_slices_missing_within_are_always_noticed(
    written: list[Path], left_out: set[int], seed: int
) -> None:
    present = [path for number, path in enumerate(written) if number not in left_out]
    random.Random(seed).shuffle(present)

    # With every second one gone here and there, no single spacing is left to count by.
    with pytest.raises(NotEligibleError, match=f"{Fault.MISSING}|{Fault.IRREGULAR}"):
        read_series(present)


Change = Callable[[list[Dataset]], object]


class Broken(NamedTuple):
    fault: Fault
    change: Change


def set_on_last(**tags: object) -> Change:
    """Change the last slice alone."""

    def change(slices: list[Dataset]) -> None:
        for keyword, value in tags.items():
            if value is None:
                delattr(slices[-1], keyword)
            else:
                setattr(slices[-1], keyword, value)

    return change


def set_on_all(**tags: object) -> Change:
    def change(slices: list[Dataset]) -> None:
        for one in slices:
            set_on_last(**tags)([one])

    return change


def move(number: int, by_mm: tuple[float, float, float]) -> Change:
    def change(slices: list[Dataset]) -> None:
        position = slices[number].ImagePositionPatient
        slices[number].ImagePositionPatient = [
            float(at) + by for at, by in zip(position, by_mm, strict=True)
        ]

    return change


@pytest.mark.parametrize(
    "broken",
    [
        Broken(Fault.NO_SLICES, set_on_all(SOPClassUID=MRImageStorage)),
        Broken(Fault.NO_SLICES, set_on_all(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])),
        Broken(Fault.TOO_FEW, lambda slices: slices.__delitem__(slice(2, None))),
        Broken(Fault.ENHANCED, set_on_all(SOPClassUID=EnhancedCTImageStorage, NumberOfFrames=9)),
        Broken(Fault.MIXED_SERIES, set_on_last(SeriesInstanceUID=generate_uid())),
        Broken(Fault.MIXED_PATIENTS, set_on_last(PatientID="another")),
        Broken(Fault.MIXED_PATIENTS, set_on_last(StudyInstanceUID=generate_uid())),
        Broken(Fault.MIXED_FRAMES, set_on_last(FrameOfReferenceUID=generate_uid())),
        Broken(Fault.MIXED_SIZES, set_on_last(Rows=ROWS - 2)),
        Broken(Fault.MIXED_SPACINGS, set_on_last(PixelSpacing=[1.5, 2.1])),
        Broken(Fault.MIXED_ORIENTATIONS, set_on_last(ImageOrientationPatient=[*tilted(3)])),
        Broken(Fault.NO_POSITION, set_on_last(ImagePositionPatient=None)),
        Broken(Fault.NO_POSITION, set_on_last(ImageOrientationPatient=[1, 0, 0, 1, 0, 0])),
        Broken(Fault.NO_SPACING, set_on_last(PixelSpacing=None)),
        Broken(Fault.NO_SPACING, set_on_last(PixelSpacing=[0, 1])),
        Broken(Fault.NO_RESCALE, set_on_last(RescaleSlope=None)),
        Broken(Fault.NO_RESCALE, set_on_last(RescaleSlope="0")),
        Broken(Fault.NO_RESCALE, set_on_last(RescaleType="OD")),
        Broken(Fault.NOT_AXIAL, set_on_all(ImageOrientationPatient=[1, 0, 0, 0, 0, -1])),
        Broken(Fault.DUPLICATE, move(8, (0, 0, -STEP))),
        Broken(Fault.MISSING, lambda slices: slices.__delitem__(slice(4, 6))),
        Broken(Fault.IRREGULAR, move(8, (0, 0, 0.3 * STEP))),
        Broken(Fault.OUT_OF_LINE, move(8, (2.0, 0, 0))),
    ],
    ids=lambda broken: broken.fault.name.lower(),
)
def test_a_series_that_makes_no_volume_is_refused_with_its_reason(
    broken: Broken, tmp_path: Path
) -> None:
    slices = make_slices(12)
    broken.change(slices)
    paths = write_slices(slices, tmp_path)
    random.Random(1).shuffle(paths)

    with pytest.raises(NotEligibleError) as refused:
        read_series(paths)

    assert str(refused.value).startswith(f"{broken.fault}: ")


def test_several_phases_under_one_series_are_not_mixed(tmp_path: Path) -> None:
    slices = make_slices(10)
    again = make_slices(
        10,
        SeriesInstanceUID=slices[0].SeriesInstanceUID,
        StudyInstanceUID=slices[0].StudyInstanceUID,
        FrameOfReferenceUID=slices[0].FrameOfReferenceUID,
    )

    with pytest.raises(NotEligibleError, match=f"{Fault.DUPLICATE}: 10 repeated"):
        read_series(write_slices([*slices, *again], tmp_path))


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (Remark.TILTED, set_on_all(ImageOrientationPatient=[*tilted(12)])),
        (Remark.JITTER, move(8, (0, 0, 0.05 * STEP))),
        (Remark.SPARSE, set_on_all(SliceThickness=1.0)),
        (Remark.PARTIAL, lambda slices: slices.__delitem__(slice(-6, None))),
        (Remark.SHORT, lambda slices: slices.__delitem__(slice(20, None))),
        (Remark.RESCALE_VARIES, set_on_last(RescaleIntercept="-1000")),
        (Remark.LOSSY, set_on_last(LossyImageCompression="01")),
        (Remark.LEFT_OUT_OTHER, set_on_last(SOPClassUID=SecondaryCaptureImageStorage)),
        (Remark.LEFT_OUT_LOCALISER, set_on_last(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])),
        (Remark.LEFT_OUT_SECONDARY, set_on_last(ImageType=["DERIVED", "SECONDARY", "REFORMATTED"])),
    ],
)
def test_what_does_not_spoil_the_volume_is_remarked_on(
    kind: Remark, change: Change, tmp_path: Path
) -> None:
    slices = make_slices(COUNT)
    change(slices)

    series = read_series(write_slices(slices, tmp_path))

    assert any(found.startswith(f"{kind}: ") for found in series.remarks)


def test_a_tilted_gantry_becomes_a_shear_of_the_affine_and_of_nothing_else(tmp_path: Path) -> None:
    slices = make_slices(COUNT, ImageOrientationPatient=list(tilted(12)))

    series = read_series(write_slices(slices, tmp_path))

    assert series.remarks == (f"{Remark.TILTED}: 12.0 degrees; nothing was resampled",)
    np.testing.assert_array_equal(
        read_volume(series), [make_body(number) for number in range(COUNT)]
    )
    for number in (0, 7, COUNT - 1):
        at = series.stack.to_patient_mm @ [0, 0, number, 1]
        np.testing.assert_allclose(at[:3], slices[number].ImagePositionPatient, atol=1e-9)


def test_slices_stacked_along_their_own_oblique_normal_are_not_called_tilted(
    tmp_path: Path,
) -> None:
    orientation = np.array(tilted(12))
    step = STEP * np.cross(orientation[:3], orientation[3:])

    series = read_series(
        write_slices(
            make_slices(COUNT, step_mm=step.tolist(), ImageOrientationPatient=list(orientation)),
            tmp_path,
        )
    )

    assert series.remarks == ()
    assert series.stack.spacing_mm == pytest.approx(STEP)


def test_a_slice_sent_twice_counts_once_unless_it_was_changed(tmp_path: Path) -> None:
    paths = write_slices(make_slices(COUNT), tmp_path)
    copy = tmp_path / "copy.dcm"
    shutil.copy(paths[5], copy)

    series = read_series([*paths, copy])

    assert len(series) == COUNT
    assert series.remarks == (f"{Remark.LEFT_OUT_REPEATED}: 1",)

    copy.write_bytes(copy.read_bytes()[:-2] + b"\1\1")
    with pytest.raises(NotEligibleError, match=Fault.SAME_UID):
        read_series([*paths, copy])


def test_each_slice_is_rescaled_by_its_own_slope_and_padding_is_air(tmp_path: Path) -> None:
    body = make_body(3)
    (plain,) = make_slices(1)
    (other,) = make_slices(1, RescaleSlope="2", RescaleIntercept="-2048", PixelPaddingValue=4000)
    stored = ((body + 2048) // 2).astype("<u2")
    stored[1, 1] = 4000
    other.PixelData = stored.tobytes()

    paths = write_slices([plain, other], tmp_path)

    np.testing.assert_array_equal(read_hounsfield(paths[0]), make_body(0))
    rescaled = read_hounsfield(paths[1])
    assert rescaled[1, 1] == AIR_HU
    np.testing.assert_array_equal(rescaled[2:], 2 * ((body[2:] + 2048) // 2) - 2048)


def test_sizes_are_bounded_before_anything_is_decoded(tmp_path: Path) -> None:
    slices = make_slices(4, Rows=60000, Columns=60000)

    with pytest.raises(OversizedImageError, match="60000 x 60000"):
        read_series(write_slices(slices, tmp_path))


def test_a_slice_with_too_few_bytes_says_so(tmp_path: Path) -> None:
    paths = write_slices(make_slices(4, Rows=2 * ROWS), tmp_path)

    with pytest.raises(UnreadablePixelsError, match="bytes of pixels"):
        read_volume(read_series(paths))


def test_files_are_grouped_by_series(tmp_path: Path) -> None:
    first = write_slices(make_slices(3), tmp_path / "a")
    second = write_slices(make_slices(3), tmp_path / "b")
    stray = tmp_path / "notes.dcm"
    stray.write_text("no DICOM")

    groups = group_by_series([*first, stray, *second])

    assert list(groups.values()) == [first, [stray], second]
    assert "" in groups
