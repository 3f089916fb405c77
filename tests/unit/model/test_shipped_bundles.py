"""The bundles that come with the project."""

import numpy as np
import pytest

from model.bundles import SHIPPED, Bundle, find_bundles
from model.evaluation.localisation import points_at_a_box
from model.phantoms import Phantom, generate_phantom
from model.pipelines import load_pipeline
from model.preprocessing import prepare

BUNDLES = find_bundles(SHIPPED)
UNSEEN_SEEDS = range(2_000_000, 2_000_012)
MAX_BYTES = 30 * 2**20


@pytest.fixture(scope="module")
def phantom_bundle() -> Bundle:
    return next(bundle for bundle in BUNDLES if bundle.pipeline == "phantom")


def test_both_pipelines_of_the_demo_have_a_bundle() -> None:
    assert {bundle.pipeline for bundle in BUNDLES} == {"chest_xray", "phantom"}


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_a_shipped_bundle_is_complete_small_and_says_what_it_is_not_for(bundle: Bundle) -> None:
    assert bundle.missing() == []
    assert sum(path.stat().st_size for path in bundle.folder.iterdir()) < MAX_BYTES
    assert (bundle.folder / "card.md").read_text().startswith("Not for clinical use.")
    assert bundle.metrics.headline in {row.name for row in bundle.metrics.evaluations}


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_the_batch_does_not_change_a_score_of_a_shipped_bundle(bundle: Bundle) -> None:
    size_px = bundle.preprocessing.size_px
    images = np.random.default_rng(0).normal(size=(3, size_px, size_px)).astype(np.float32)
    pipeline = load_pipeline(bundle, "cpu")

    together = [prediction.score for prediction in pipeline.predict(images)]

    alone = [pipeline.predict(image[None])[0].score for image in images]
    assert together == pytest.approx(alone, abs=1e-5)


def test_phantoms_are_read_right_and_the_heatmap_lies_on_the_lesion(phantom_bundle: Bundle) -> None:
    pipeline = load_pipeline(phantom_bundle, "cpu")
    phantoms = [
        generate_phantom(seed, lesion=lesion, size_px=(768, 640))
        for seed in UNSEEN_SEEDS
        for lesion in (False, True)
    ]
    pixels = [prepare(p.image, phantom_bundle.preprocessing).pixels for p in phantoms]

    predictions = pipeline.predict(np.stack(pixels))

    right = [
        (phantom_bundle.interpret(prediction.score).outcome == "flagged") == phantom.has_lesion
        for phantom, prediction in zip(phantoms, predictions, strict=True)
    ]
    on_lesion = [
        points_at_a_box(prediction.heatmap, boxes_of(phantom))
        for phantom, prediction in zip(phantoms, predictions, strict=True)
        if phantom.has_lesion
    ]
    assert sum(right) >= len(right) - 1
    assert sum(on_lesion) >= len(on_lesion) - 1


def boxes_of(phantom: Phantom) -> list[tuple[float, float, float, float]]:
    rows, columns = phantom.image.shape
    return [(x / columns, y / rows, w / columns, h / rows) for x, y, w, h in phantom.lesion_boxes]
