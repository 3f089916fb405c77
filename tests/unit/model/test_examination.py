"""One file on its way to the encoder."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.errors import ImageError, MalformedInstanceError, UnreadablePixelsError
from common.pixels.rendition import read_rendition
from model.bundles import Bundle
from model.eligibility import Policy
from model.examination import examine
from tests.radiographs import make_exposure, make_radiograph, write_radiograph
from tests.worker_parts import SIDE_PX, make_bundle

EXPOSURE = make_exposure(12)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "echo")


def test_an_eligible_radiograph_is_prepared_and_pictured(tmp_path: Path, bundle: Bundle) -> None:
    path = write_radiograph(make_radiograph(EXPOSURE, 12), tmp_path / "i.dcm")
    examined = examine(path, bundle, Policy(), tmp_path / "r.png")
    assert examined.eligible
    assert examined.reasons == ()
    assert examined.pixels is not None
    assert examined.pixels.shape == (SIDE_PX, SIDE_PX)
    assert examined.affine == (120, 0, 0, 0, 150, 0)
    assert (examined.rows, examined.columns, examined.rendition_written) == (150, 120, True)
    expected = EXPOSURE / 4095
    np.testing.assert_allclose(read_rendition(tmp_path / "r.png") / 65535, expected, atol=1e-4)


def test_an_ineligible_one_is_pictured_all_the_same(tmp_path: Path, bundle: Bundle) -> None:
    path = write_radiograph(make_radiograph(EXPOSURE, 12, ViewPosition="LL"), tmp_path / "i.dcm")
    examined = examine(path, bundle, Policy(), tmp_path / "r.png")
    assert (examined.eligible, examined.reasons) == (False, ("non-frontal view",))
    assert examined.pixels is None
    assert examined.rendition_written
    assert read_rendition(tmp_path / "r.png").shape == (150, 120)


def test_an_ineligible_one_without_readable_pixels_is_no_error(
    tmp_path: Path, bundle: Bundle
) -> None:
    dataset = make_radiograph(EXPOSURE[:, :90], 12, ViewPosition="LL", NumberOfFrames=2)
    examined = examine(
        write_radiograph(dataset, tmp_path / "i.dcm"), bundle, Policy(), tmp_path / "r.png"
    )
    assert examined.reasons == ("several frames", "non-frontal view")
    assert not examined.rendition_written
    assert not (tmp_path / "r.png").exists()


def test_an_eligible_one_without_readable_pixels_is_an_error(
    tmp_path: Path, bundle: Bundle
) -> None:
    path = write_radiograph(make_radiograph(EXPOSURE, 12), tmp_path / "i.dcm")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UnreadablePixelsError):
        examine(path, bundle, Policy())


def test_a_png_has_no_tags_to_check(tmp_path: Path, bundle: Bundle) -> None:
    Image.fromarray(EXPOSURE).save(tmp_path / "i.png")
    examined = examine(tmp_path / "i.png", bundle, Policy())
    assert (examined.eligible, examined.reasons) == (True, ("no tags to check",))
    path = write_radiograph(make_radiograph(EXPOSURE, 12), tmp_path / "i.dcm")
    from_dicom = examine(path, bundle, Policy())
    assert examined.pixels is not None
    assert from_dicom.pixels is not None
    np.testing.assert_allclose(examined.pixels, from_dicom.pixels, atol=2e-5)


def test_bounds_hold_for_both_kinds_of_file(tmp_path: Path, bundle: Bundle) -> None:
    Image.fromarray(EXPOSURE).save(tmp_path / "i.png")
    write_radiograph(make_radiograph(EXPOSURE, 12), tmp_path / "i.dcm")
    for name in ("i.png", "i.dcm"):
        with pytest.raises(ImageError):
            examine(tmp_path / name, bundle, Policy(), max_pixels=100)


def test_a_text_is_malformed(tmp_path: Path, bundle: Bundle) -> None:
    (tmp_path / "i.dcm").write_text("a letter to the radiologist")
    with pytest.raises(MalformedInstanceError):
        examine(tmp_path / "i.dcm", bundle, Policy())
