"""MedImageInsight beside the numbers of the published network, at a small size."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model.encoders.medimageinsight import (
    MedImageInsight,
    MedImageInsightSpec,
    build_image_encoder,
    convert_state_dict,
)
from model.encoders.medimageinsight_text import MedImageInsightText, TextSpec

pytestmark = pytest.mark.data

TWIN = MedImageInsightSpec(
    widths=(8, 16, 32, 64),
    heads=(1, 2, 4, 8),
    depths=(1, 1, 2, 1),
    embedding_width=32,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),  # the oracle's input is standardised already
)
TEXT_TWIN = TextSpec(vocabulary=512, width=32, layers=2, heads=2, embedding_width=24)


def read_oracle(test_data: Path, name: str) -> dict[str, torch.Tensor]:
    with np.load(test_data.parent / "facts" / name) as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored}


@pytest.fixture(scope="module")
def oracle(test_data: Path) -> dict[str, torch.Tensor]:
    return read_oracle(test_data, "medimageinsight_oracle.npz")


@pytest.fixture(scope="module")
def text_oracle(test_data: Path) -> dict[str, torch.Tensor]:
    return read_oracle(test_data, "medimageinsight_text_oracle.npz")


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-4)])
def test_the_image_encoder_gives_the_published_numbers(
    oracle: dict[str, torch.Tensor], dtype: torch.dtype, tolerance: float
) -> None:
    encoder = MedImageInsight(TWIN)
    encoder.davit.load_state_dict(convert_state_dict(oracle), strict=True)
    encoder.image_projection.data = oracle["image_projection"]
    encoder = encoder.to(dtype).eval()
    images = oracle["x"].to(dtype)

    with torch.inference_mode():
        embedding, maps = encoder.forward_stages(images)
        features = encoder.davit(images)

    expected = [*(oracle[f"stage{n}"] for n in range(4)), oracle["features"], oracle["embedding"]]
    for ours, theirs in zip([*maps, features, embedding], expected, strict=True):
        assert (ours.double() - theirs).abs().max().item() < tolerance


def test_what_is_built_alone_is_the_same_network(oracle: dict[str, torch.Tensor]) -> None:
    davit = build_image_encoder(TWIN.widths, TWIN.heads, TWIN.depths).double()
    davit.load_state_dict(convert_state_dict(oracle), strict=True)

    with torch.inference_mode():
        features = davit(oracle["x"].double())

    assert (features - oracle["features"]).abs().max().item() < 1e-9


def test_the_text_encoder_gives_the_published_numbers(
    text_oracle: dict[str, torch.Tensor],
) -> None:
    names = [name for name in text_oracle if name.startswith("lang_")]
    text = MedImageInsightText(TEXT_TWIN).eval()
    stored = {name: text_oracle[name] for name in names}
    text.load_state_dict({**stored, "logit_scale": torch.tensor(0.0)}, strict=True)

    with torch.inference_mode():
        embedding = text(text_oracle["input_ids"], text_oracle["attention_mask"])

    assert (embedding - text_oracle["embedding"]).abs().max().item() < 1e-5
