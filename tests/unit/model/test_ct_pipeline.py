"""A series becomes one score and one heatmap a slice; all weights here are random."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import BundleError, PredictionError
from model.bundles import Bundle
from model.ct.heatmap_volume import (
    cell_centre_mm,
    heatmap_volume,
    read_heatmap_volume,
    write_heatmap_volume,
)
from model.ct.hounsfield import prepare_slice
from model.ct.hounsfield_window import HounsfieldWindow
from model.ct.network import build_series_network
from model.ct.pipeline import SLICES_AT_ONCE, CtPipeline, load_ct_pipeline
from model.ct.series import read_series
from model.ct.slice_examination import has_air
from model.insight import alpha_for, smooth_max
from model.preprocessing import PreprocessingSpec
from tests.ct_bundles import write_ct_bundle
from tests.ct_series import SPACING_MM, STEP_MM, make_slices, write_slices
from tests.small_bundle import ENCODER, SIZE_PX, write_small_bundle

SLICES = 2 * SLICES_AT_ONCE + 3


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_ct_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def pipeline(bundle: Bundle) -> CtPipeline:
    return load_ct_pipeline(bundle, "cpu")


@pytest.fixture(scope="module")
def slices() -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.normal(size=(SIZE_PX, SIZE_PX)).astype(np.float32) for _ in range(SLICES)]


def test_a_series_taken_piece_by_piece_scores_as_one_bag(
    pipeline: CtPipeline, bundle: Bundle, slices: list[np.ndarray]
) -> None:
    prediction = pipeline.predict(iter(slices))

    network = build_series_network(bundle.encoder)
    network.load_state_dict(pipeline._network.state_dict())
    with torch.inference_mode():
        whole = network.eval()(torch.from_numpy(np.stack(slices))[:, None])
    assert prediction.score == pytest.approx(float(whole.score), abs=1e-4)
    np.testing.assert_allclose(prediction.heatmap, whole.insight.heatmap[:, 0].numpy(), atol=1e-3)
    cells = torch.from_numpy(prediction.heatmap.astype(np.float64)).flatten()
    pooled = float(smooth_max(cells, alpha_for(len(cells))))
    assert prediction.insight_probability == pytest.approx(pooled, abs=1e-3)
    assert prediction.score == pytest.approx(math.log(pooled / (1 - pooled)), abs=1e-2)


def test_the_order_of_the_slices_moves_their_heatmaps_and_not_the_score(
    pipeline: CtPipeline, slices: list[np.ndarray]
) -> None:
    plain, turned = pipeline.predict(slices), pipeline.predict(slices[::-1])

    assert turned.score == pytest.approx(plain.score, abs=1e-4)
    np.testing.assert_allclose(turned.heatmap[::-1], plain.heatmap, atol=1e-3)
    np.testing.assert_allclose(turned.slice_probability[::-1], plain.slice_probability, atol=1e-4)


def test_one_hot_slice_counts_as_much_in_a_long_series_as_in_a_short_one() -> None:
    """The pooling's sharpness follows the number of cells, see ``alpha_for``."""
    network = build_series_network(ENCODER.model_dump())
    for count in (8, 400):
        detection = torch.full((count, 1, 16, 16), -20.0)
        detection[3, 0, 5, 5] = 20.0
        context = torch.full_like(detection, -20.0)
        judged = network.judge(type(network.look(torch.zeros(1, 1, 64, 64)))(detection, context))
        assert float(judged.insight.probability) == pytest.approx(0.92, abs=0.03)
        assert int(judged.slice_probability.argmax()) == 3


def test_a_series_without_slices_and_one_with_broken_numbers_are_refused(
    pipeline: CtPipeline, slices: list[np.ndarray]
) -> None:
    with pytest.raises(PredictionError, match="without slices"):
        pipeline.predict([])
    with pytest.raises(PredictionError, match="no finite answer"):
        pipeline.predict([*slices[:2], np.full_like(slices[0], np.nan)])


def test_a_ct_bundle_is_research_only_and_names_what_it_lacks(bundle: Bundle) -> None:
    missing = bundle.missing()

    assert "head" not in missing
    assert {"calibrator", "operating points"} <= set(missing)
    with pytest.raises(BundleError, match="no calibrator"):
        bundle.interpret(0.0)


def test_a_bundle_that_cannot_read_a_scan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="hounsfield_window"):
        load_ct_pipeline(write_small_bundle(tmp_path / "radiographs"), "cpu")
    stretched = PreprocessingSpec(size_px=SIZE_PX)
    with pytest.raises(BundleError, match="stretched"):
        load_ct_pipeline(write_ct_bundle(tmp_path / "ct", preprocessing=stretched), "cpu")
    other = {**ENCODER.model_dump(), "widths": (8, 16, 24, 64)}
    with pytest.raises(BundleError, match="cannot be loaded"):
        load_ct_pipeline(
            write_ct_bundle(tmp_path / "misfit", encoder=other).model_copy(
                update={"encoder": ENCODER.model_dump()}
            ),
            "cpu",
        )


def test_a_registered_dinov2_of_any_size_serves_as_encoder(tmp_path: Path) -> None:
    twin = {"kind": "dinov2", "width": 32, "depth": 2, "heads": 2, "trained_px": 56}
    spec = PreprocessingSpec(size_px=56, stretch=False, mean=0.0, std=1.0)
    pipeline = load_ct_pipeline(write_ct_bundle(tmp_path, encoder=twin, preprocessing=spec), "cpu")

    prediction = pipeline.predict([np.zeros((56, 56), np.float32)] * 3)

    assert prediction.heatmap.shape == (3, 4, 4)


def test_the_window_is_the_same_for_every_slice(bundle: Bundle) -> None:
    hounsfield = np.array([[-3000, -1000], [-300, 400]], np.float32)
    spec = PreprocessingSpec(size_px=16, stretch=False, mean=0.0, std=1.0)

    prepared = prepare_slice(hounsfield, HounsfieldWindow(), spec)

    assert prepared.pixels[[0, 0, -1, -1], [0, -1, 0, -1]] == pytest.approx([0, 0, 0.5, 1])
    assert prepared.affine == (2, 0, 0, 0, 2, 0)
    tissue, _ = prepare_slice(np.full((9, 9), 40, np.float32), HounsfieldWindow(), spec)
    plain = bundle.model_copy(update={"preprocessing": spec})
    assert has_air(prepared.pixels, plain)
    assert not has_air(tissue, plain)


def test_the_heatmap_file_leads_from_a_cell_back_to_the_patient(tmp_path: Path) -> None:
    series = read_series(write_slices(make_slices(10, shape=(24, 20)), tmp_path))
    heatmap = np.zeros((10, 4, 5), np.float16)
    heatmap[7, 1, 2] = 1
    affine = (20.0, 0.0, 0.0, 0.0, 24.0, 0.0)
    path = tmp_path / "series.heatmap.npz"

    write_heatmap_volume(heatmap_volume(series, heatmap, heatmap.max(axis=(1, 2)), affine), path)
    read = read_heatmap_volume(path)

    np.testing.assert_array_equal(read.heatmap, heatmap)
    assert list(read.sop_instance_uid) == [one.sop_instance_uid for one in series.stack.slices]
    # The cell covers columns 8 to 11 and rows 6 to 11: its centre lies between two pixels.
    expected = [-20 + 9.5 * SPACING_MM[1], -18 + 8.5 * SPACING_MM[0], 100 + 7 * STEP_MM]
    np.testing.assert_allclose(cell_centre_mm(read, 7, 1, 2), expected)
