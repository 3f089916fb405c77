"""The encoder's input is the same for every encoding of an exposure, and for training."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from common.pixels.image_files import read_image_file
from common.pixels.reading import read_pixels
from model.preprocessing import PreprocessingSpec, prepare, resize_and_stretch
from tests.radiographs import make_exposure, make_radiograph, write_radiograph

SPEC = PreprocessingSpec(size_px=64)
EXPOSURE = make_exposure(12, (300, 240))


@pytest.mark.parametrize(
    "encoding",
    [
        {},
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1", "Modality": "DX"},
        {"WindowCenter": 2048, "WindowWidth": 4096},
        {"RescaleSlope": 0.5, "RescaleIntercept": -1000},
    ],
)
@pytest.mark.parametrize(("bits", "signed"), [(12, False), (13, True), (16, False), (16, True)])
def test_encodings_of_one_exposure_are_prepared_alike(
    tmp_path: Path, encoding: dict[str, Any], bits: int, signed: bool
) -> None:
    inverted = encoding.get("PhotometricInterpretation") == "MONOCHROME1"
    stored = 4095 - EXPOSURE if inverted else EXPOSURE
    path = write_radiograph(
        make_radiograph(stored, bits, signed=signed, **encoding), tmp_path / "i.dcm"
    )
    Image.fromarray(EXPOSURE).save(tmp_path / "i.png")
    from_dicom = prepare(read_pixels(path), SPEC).pixels
    from_png = prepare(read_image_file(tmp_path / "i.png"), SPEC).pixels
    np.testing.assert_allclose(from_dicom, from_png, atol=2e-5)


def test_training_and_work_prepare_eight_bits_alike() -> None:
    grey = make_exposure(8).astype(np.uint8)
    at_work = prepare((grey / 255).astype(np.float32), SPEC).pixels
    in_training = (resize_and_stretch(grey, SPEC) - SPEC.mean) / SPEC.std
    np.testing.assert_allclose(at_work, in_training, atol=2e-5)


@pytest.mark.parametrize("shape", [(64, 64), (300, 240), (40, 30), (200, 20), (1, 1)])
def test_every_size_becomes_the_square(shape: tuple[int, int]) -> None:
    stretched = resize_and_stretch(make_exposure(12, (300, 240))[: shape[0], : shape[1]], SPEC)
    assert stretched.shape == (64, 64)
    assert stretched.dtype == np.float32
    assert 0 <= stretched.min() <= stretched.max() <= 1


def test_shrinking_averages_whole_areas() -> None:
    stripes = np.tile(np.array([0.0, 1.0], np.float32), (128, 64))
    steps = stripes * np.linspace(0.2, 1, 128, dtype=np.float32)[:, None]
    stretched = resize_and_stretch(steps, SPEC)
    assert np.ptp(stretched, axis=1).max() < 1e-5  # no stripe survives in any row
    assert stretched[-1, 0] > stretched[0, 0]


def test_an_image_of_one_value_is_all_black() -> None:
    assert (resize_and_stretch(np.full((90, 80), 0.4, np.float32), SPEC) == 0).all()


def test_the_affine_leads_from_the_square_to_the_image() -> None:
    a, b, c, d, e, f = prepare(np.zeros((300, 240), np.float32), SPEC).affine
    assert (a * 1 + b * 1 + c, d * 1 + e * 1 + f) == (240, 300)
    assert (c, f) == (0, 0)


def test_a_specification_with_crossed_percentiles_is_refused() -> None:
    with pytest.raises(ValidationError):
        PreprocessingSpec(size_px=64, low_percentile=90, high_percentile=10)


def official_pixels(image: Image.Image, size_px: int) -> np.ndarray:
    """Do what the official evaluation does before it standardises, in its own order."""
    resized = image.convert("RGB").resize((size_px, size_px), Image.Resampling.BICUBIC)
    return (np.asarray(resized).astype(np.float32) / np.float32(255)).transpose(2, 0, 1)


@pytest.mark.parametrize("shape", [(600, 480), (480, 480), (333, 1111), (100, 90)])
def test_eight_bits_are_resized_to_the_bit_as_pillow_does(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    spec = PreprocessingSpec(size_px=480, interpolation="pil_bicubic", stretch=False, mean=0, std=1)
    random = np.random.default_rng(0)
    grey = random.integers(0, 256, shape, dtype=np.uint8)
    colour = random.integers(0, 256, (*shape, 3), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    expected = official_pixels(Image.fromarray(grey), 480)

    from_array = prepare(grey, spec).pixels
    from_file = prepare(read_image_file(tmp_path / "grey.png"), spec).pixels
    from_colour = prepare(colour, spec).pixels

    assert all((from_array == channel).all() for channel in expected)
    assert (from_file == from_array).all()
    assert (from_colour == official_pixels(Image.fromarray(colour), 480)).all()
    assert from_array.dtype == np.float32


def test_without_a_stretch_the_grey_scale_stays() -> None:
    grey = np.full((90, 80), 51, np.uint8)
    spec = PreprocessingSpec(size_px=64, stretch=False)

    np.testing.assert_allclose(resize_and_stretch(grey, spec), 0.2, atol=1e-6)


def test_bundles_written_before_pillow_was_a_choice_mean_what_they_meant() -> None:
    old = '{"size_px": 64, "low_percentile": 1.0, "high_percentile": 99.0, "interpolation": "area"}'

    assert PreprocessingSpec.model_validate_json(old) == SPEC
