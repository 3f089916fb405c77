"""Pipelines: from a bundle to scores that depend on the image alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from common.errors import BundleError, ConfigurationError, PredictionError
from model.bundles import Bundle
from model.pipelines import LoadedPipeline, load_pipeline
from tests.small_bundle import ENCODER, SIZE_PX, write_small_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_small_bundle(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def pipeline(bundle: Bundle) -> LoadedPipeline:
    return load_pipeline(bundle, "cpu")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(9, SIZE_PX, SIZE_PX)).astype(np.float32)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 9])
def test_the_batch_does_not_change_a_score(
    pipeline: LoadedPipeline, images: np.ndarray, batch_size: int
) -> None:
    alone = [pipeline.predict(image[None])[0] for image in images]

    together = [
        prediction
        for start in range(0, len(images), batch_size)
        for prediction in pipeline.predict(images[start : start + batch_size])
    ]

    for one, other in zip(alone, together, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-5)
        assert one.insight_probability == pytest.approx(other.insight_probability, abs=1e-5)
    assert len({round(one.score, 6) for one in alone}) > 1


def test_two_loads_give_the_same_scores(
    bundle: Bundle, pipeline: LoadedPipeline, images: np.ndarray
) -> None:
    again = load_pipeline(bundle, "cpu").predict(images)

    assert [p.score for p in pipeline.predict(images)] == [p.score for p in again]


def test_the_heatmap_is_half_precision_on_an_absolute_scale(
    pipeline: LoadedPipeline, images: np.ndarray
) -> None:
    heatmap = pipeline.predict(images[:1])[0].heatmap

    assert heatmap.dtype == np.float16
    assert heatmap.shape == (SIZE_PX // 16, SIZE_PX // 16)
    assert heatmap.min() >= 0
    assert heatmap.max() <= 1


def test_an_answer_that_is_no_number_is_an_error(pipeline: LoadedPipeline) -> None:
    poison = np.full((1, SIZE_PX, SIZE_PX), np.nan, dtype=np.float32)

    with pytest.raises(PredictionError):
        pipeline.predict(poison)


def test_images_of_another_size_are_refused(pipeline: LoadedPipeline) -> None:
    with pytest.raises(ValueError, match="64"):
        pipeline.predict(np.zeros((1, 32, 32), dtype=np.float32))


def test_weights_that_do_not_fit_the_encoder_are_refused(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path)
    weights = load_file(bundle.weights)
    weights.pop("triage.1.weight")
    save_file(weights, bundle.weights)

    with pytest.raises(BundleError, match=r"triage\.1\.weight"):
        load_pipeline(bundle, "cpu")


def test_an_encoder_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path, encoder={**ENCODER.model_dump(), "kind": "oracle"})

    with pytest.raises(BundleError, match="kind"):
        load_pipeline(bundle, "cpu")


def test_a_device_that_is_not_there_stops_the_process(bundle: Bundle) -> None:
    with pytest.raises(ConfigurationError, match="nonsense"):
        load_pipeline(bundle, "nonsense")


def test_auto_takes_cuda_only_where_there_is_one(bundle: Bundle) -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"

    assert load_pipeline(bundle).device.type == expected
