"""Phantoms: the same from the same seed, and true to what they say of themselves."""

import numpy as np
import pytest

from model.phantoms import generate_phantom

SIZE_PX = (256, 240)
SEEDS = range(12)


def test_the_same_seed_gives_the_same_phantom() -> None:
    first, second = (generate_phantom(7, lesion=True, size_px=SIZE_PX) for _ in range(2))

    assert np.array_equal(first.image, second.image)
    assert first.lesion_boxes == second.lesion_boxes


def test_another_seed_gives_another_phantom() -> None:
    first, second = (generate_phantom(seed, lesion=False, size_px=SIZE_PX) for seed in (1, 2))

    assert np.abs(first.image - second.image).mean() > 0.02


@pytest.mark.parametrize("size_px", [(256, 256), (300, 210), (900, 850)])
def test_an_image_has_the_size_asked_for_and_stays_in_its_range(size_px: tuple[int, int]) -> None:
    image = generate_phantom(3, lesion=True, size_px=size_px).image

    assert image.shape == size_px
    assert image.dtype == np.float32
    assert image.min() >= 0
    assert image.max() <= 1
    assert image.std() > 0.15


def test_one_seed_is_one_patient_at_every_size() -> None:
    small = generate_phantom(5, lesion=True, size_px=(400, 400))
    large = generate_phantom(5, lesion=True, size_px=(800, 800))

    shrunk = large.image.reshape(400, 2, 400, 2).mean(axis=(1, 3))
    assert np.corrcoef(small.image.ravel(), shrunk.ravel())[0, 1] > 0.99
    for box, double in zip(small.lesion_boxes, large.lesion_boxes, strict=True):
        assert np.allclose(np.array(box) * 2, double, atol=10)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_lesion_box_lies_in_the_lungs(seed: int) -> None:
    phantom = generate_phantom(seed, lesion=True, size_px=SIZE_PX)

    assert 1 <= len(phantom.lesion_boxes) <= 3
    for x, y, width, height in phantom.lesion_boxes:
        assert x >= 0
        assert y >= 0
        assert x + width <= SIZE_PX[1]
        assert y + height <= SIZE_PX[0]
        assert phantom.lungs[y + height // 2, x + width // 2]
        assert phantom.lungs[y : y + height, x : x + width].mean() > 0.6


@pytest.mark.parametrize("seed", SEEDS)
def test_a_lesion_is_brighter_than_the_same_lung_without_it_and_only_there(seed: int) -> None:
    ill = generate_phantom(seed, lesion=True, size_px=SIZE_PX)
    well = generate_phantom(seed, lesion=False, size_px=SIZE_PX)

    assert well.lesion_boxes == []
    difference = ill.image - well.image
    inside = np.zeros(SIZE_PX, bool)
    for x, y, width, height in ill.lesion_boxes:
        inside[y : y + height, x : x + width] = True
        assert difference[y : y + height, x : x + width].mean() > 0.02
    assert np.abs(difference[~inside]).mean() < 0.01


def test_a_phantom_too_small_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="64 by 64"):
        generate_phantom(1, lesion=False, size_px=(32, 256))
