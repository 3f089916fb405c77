"""INSIGHT beside the numbers of its authors' module."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model.insight import InsightHead, decoupling_penalty

pytestmark = pytest.mark.data

NAMES = {"reduce_dimension_block": "projection", "backbone_block": "detection"}
NAMES["context_block"] = "context"
TOLERANCE = 1e-9


@pytest.fixture(scope="module")
def oracle(test_data: Path) -> dict[str, torch.Tensor]:
    with np.load(test_data.parent / "facts" / "insight_oracle.npz") as stored:
        return {name: torch.from_numpy(stored[name]).double() for name in stored}


def faithful_head(oracle: dict[str, torch.Tensor], *, otsu: bool) -> InsightHead:
    head = InsightHead(
        16, 2, layer_norm="spatial", grid=(14, 14), alpha=8.0, otsu=otsu, bag=True
    ).double()
    weights = {}
    for name, tensor in oracle.items():
        block, dot, rest = name.partition(".")
        if dot:
            weights[f"{NAMES[block]}.{rest}"] = tensor
    head.load_state_dict(weights, strict=True)
    return head.eval()


@pytest.mark.parametrize("otsu", [False, True])
def test_the_faithful_head_gives_the_published_numbers(
    oracle: dict[str, torch.Tensor], otsu: bool
) -> None:
    head = faithful_head(oracle, otsu=otsu)
    suffix = "_otsu" if otsu else ""

    with torch.inference_mode():
        detection, context = head.logits(oracle["x"])
        output = head(oracle["x"])

    for ours, theirs in (
        (detection, oracle["detection_logits"]),
        (context, oracle["context_logits"]),
        (output.heatmap, oracle[f"heatmap{suffix}"]),
        (output.probability[0], oracle[f"probability{suffix}"]),
        (decoupling_penalty(detection, 0.01), oracle["penalty_lambda_0_01"]),
    ):
        assert (ours - theirs).abs().max().item() < TOLERANCE
