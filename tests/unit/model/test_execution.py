"""How a network runs: the choice follows the hardware, and the numbers stay."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model.bundles import Bundle
from model.encoders.building import build_encoder
from model.encoders.medimageinsight import MedImageInsight
from model.execution import (
    BATCH_SIZES,
    HalfPrecisionEncoder,
    choose_execution,
    fill_up,
    fixed_batch,
    has_bfloat16,
    load_module,
)
from model.network import TriageNetwork
from model.pipelines import load_pipeline
from model.training.packing import DISCLAIMER, write_bundle, write_half_weights
from tests.pretrained_twins import MEDIMAGEINSIGHT_TWIN
from tests.small_bundle import SIZE_PX, write_small_bundle

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_small_bundle(tmp_path_factory.mktemp("small"))


def test_only_large_encoders_run_in_half_precision_and_only_where_hardware_has_it() -> None:
    able = torch.bfloat16 if has_bfloat16(CPU) else torch.float32

    assert choose_execution("compact_davit", "cpu", "eager").dtype == torch.float32
    assert choose_execution("medimageinsight", "cpu", "eager").dtype == able


def test_a_cpu_without_bfloat16_instructions_has_no_bfloat16() -> None:
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""

    assert has_bfloat16(CPU) == ("avx512_bf16" in flags or "amx_bf16" in flags)


def test_the_site_chooses_between_eager_and_compiled() -> None:
    assert not choose_execution("compact_davit", "cpu").compiled
    assert choose_execution("compact_davit", "cpu", "compiled").compiled


@pytest.mark.parametrize(("count", "size"), [(1, 1), (3, 4), (8, 8), (9, 16), (40, 16)])
def test_a_batch_is_filled_up_to_the_next_fixed_size(count: int, size: int) -> None:
    images = torch.rand(min(count, 16), 1, 8, 8)

    filled = fill_up(images, fixed_batch(count))

    assert len(filled) == size
    assert size in BATCH_SIZES
    assert torch.equal(filled[: len(images)], images)


@pytest.mark.parametrize("count", [3, 18])
def test_filling_a_batch_up_changes_no_prediction_and_adds_none(bundle: Bundle, count: int) -> None:
    images = np.random.default_rng(0).normal(size=(count, SIZE_PX, SIZE_PX)).astype(np.float32)

    eager = load_pipeline(bundle, "cpu", "eager").predict(images)
    # Batches as for a compiled network, whose making would take a minute: bench.inference does it.
    with torch.compiler.set_stance("force_eager"):
        filled = load_pipeline(bundle, "cpu", "compiled").predict(images)

    assert len(filled) == count
    for one, other in zip(eager, filled, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-5)
        assert np.abs(one.heatmap.astype(float) - other.heatmap).max() < 2e-3


def test_a_pretrained_encoder_with_a_head_takes_grey_and_colour(tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = MEDIMAGEINSIGHT_TWIN.model_dump()
    small = write_small_bundle(tmp_path / "small")
    write_half_weights(TriageNetwork(build_encoder(spec)), tmp_path / "large")
    fields = small.model_dump(exclude={"files", "folder", "sha256"})
    preprocessing = {"size_px": 96, "interpolation": "pil_bicubic", "mean": 0.0, "std": 1.0}
    bundle = write_bundle(
        tmp_path / "large",
        f"{DISCLAIMER}\n\nRandom weights.\n",
        fields | {"encoder": spec, "preprocessing": preprocessing},
    )
    grey = np.random.default_rng(0).random((2, 96, 96), dtype=np.float32)
    pipeline = load_pipeline(bundle, "cpu", "eager")

    of_grey = pipeline.predict(grey)
    of_colour = pipeline.predict(np.repeat(grey[:, None], 3, axis=1))

    assert [one.score for one in of_grey] == [one.score for one in of_colour]
    assert of_grey[0].heatmap.shape == (3, 3)


def test_half_precision_stays_near_and_gives_single_precision() -> None:
    torch.manual_seed(0)
    encoder = MedImageInsight(MEDIMAGEINSIGHT_TWIN).eval()
    images = torch.rand(2, 1, 96, 96)

    with torch.inference_mode():
        exact = encoder(images)
        half = HalfPrecisionEncoder(encoder)(images)

    assert half.embedding.dtype == half.spatial.dtype == torch.float32
    assert torch.cosine_similarity(half.embedding, exact.embedding).min().item() > 0.99
    assert not torch.equal(half.embedding, exact.embedding)


def test_a_large_network_is_loaded_without_being_drawn_at_random_first() -> None:
    torch.manual_seed(0)
    encoder = MedImageInsight(MEDIMAGEINSIGHT_TWIN)
    state = torch.get_rng_state()

    loaded = load_module(
        lambda: MedImageInsight(MEDIMAGEINSIGHT_TWIN), encoder.state_dict(), large=True
    )

    assert torch.equal(torch.get_rng_state(), state)
    assert not loaded.training
    assert all(parameter.device == CPU for parameter in loaded.parameters())
    assert all(
        torch.equal(tensor, encoder.state_dict()[name])
        for name, tensor in loaded.state_dict().items()
    )
