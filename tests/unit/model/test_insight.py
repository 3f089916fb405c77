"""INSIGHT: sizes as published, pooling that stays in range, thresholds that cut nothing flat."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from model.insight import (
    InsightHead,
    InsightOutput,
    StreamedSmoothMax,
    alpha_for,
    decoupling_penalty,
    insight_loss,
    otsu_threshold,
    smooth_max,
)


@pytest.mark.parametrize(
    ("grid", "width", "findings", "layer_norm", "parameters"),
    [
        ((14, 14), 1024, 1, "spatial", 669_954),
        ((14, 14), 1024, 1, "channel", 420_354),
        ((16, 16), 1024, 1, "channel", 420_354),
        ((15, 15), 2048, 1, "channel", 551_426),
        ((37, 37), 1024, 1, "channel", 420_354),
        ((16, 16), 1024, 1, "spatial", 746_754),
        ((16, 16), 1024, 14, "spatial", 755_100),
        ((16, 16), 1024, 14, "channel", 428_700),
        ((15, 15), 2048, 1, "spatial", 838_146),
        ((15, 15), 2048, 14, "spatial", 846_492),
        ((15, 15), 2048, 14, "channel", 559_772),
        ((37, 37), 1024, 1, "spatial", 2_171_394),
    ],
)
def test_the_head_has_as_many_parameters_as_published(
    grid: tuple[int, int], width: int, findings: int, layer_norm: str, parameters: int
) -> None:
    kind = "spatial" if layer_norm == "spatial" else "channel"
    head = InsightHead(width, findings, layer_norm=kind, grid=grid)

    assert sum(p.numel() for p in head.parameters()) == parameters


@pytest.mark.parametrize(
    ("grid", "width", "findings", "convolutions", "operations"),
    [
        (14, 1024, 1, 419_074, 164e6),
        (16, 1024, 1, 419_074, 214e6),
        (16, 1024, 14, 427_420, 219e6),
        (15, 2048, 1, 550_146, 247e6),
        (15, 2048, 14, 558_492, 251e6),
        (37, 1024, 1, 419_074, 1.15e9),
    ],
)
def test_convolutions_and_operations_are_those_of_the_published_head(
    grid: int, width: int, findings: int, convolutions: int, operations: float
) -> None:
    with torch.device("meta"):
        head, spatial = InsightHead(width, findings), torch.empty(1, width, grid, grid)
        with FlopCounterMode(display=False) as counter:
            head.logits(spatial)

    of_convolutions = [
        p for m in head.modules() if isinstance(m, nn.Conv2d) for p in m.parameters()
    ]
    assert sum(p.numel() for p in of_convolutions) == convolutions
    assert counter.get_total_flops() == pytest.approx(operations, rel=0.01)


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=40),
    alpha=st.floats(0.1, 60),
)
def test_smooth_max_lies_between_the_least_and_the_greatest_value(
    values: list[float], alpha: float
) -> None:
    row = torch.tensor(values, dtype=torch.float64)

    pooled = smooth_max(row, alpha).item()

    assert row.min().item() - 1e-12 <= pooled <= row.max().item() + 1e-12


@pytest.mark.parametrize("cells", [49, 144, 225, 1369])
def test_one_hot_cell_gives_about_the_same_probability_on_every_grid(cells: int) -> None:
    row = torch.zeros(cells)
    row[cells // 2] = 1.0

    assert smooth_max(row, alpha_for(cells)).item() == pytest.approx(0.924, abs=0.01)


def test_a_constant_map_is_left_alone_by_otsu() -> None:
    flat = torch.full((1, 1, 20), 0.3)

    assert (flat > otsu_threshold(flat)[..., None]).all()


def test_otsu_separates_two_groups_of_values() -> None:
    row = torch.tensor([0.1, 0.12, 0.11, 0.13, 0.8, 0.82, 0.81])

    assert 0.12 <= otsu_threshold(row[None]).item() < 0.8


def test_otsu_in_forward_zeroes_cells_and_keeps_the_others() -> None:
    torch.manual_seed(0)
    spatial = torch.randn(2, 8, 6, 6)
    plain, cut = InsightHead(8), InsightHead(8, otsu=True)
    cut.load_state_dict(plain.state_dict())

    before, after = plain(spatial).heatmap, cut(spatial).heatmap

    kept = after > 0
    assert 0 < kept.sum() < kept.numel()
    assert torch.equal(after[kept], before[kept])


def test_a_batch_is_pooled_image_by_image_and_a_bag_as_one() -> None:
    torch.manual_seed(0)
    spatial = torch.randn(3, 8, 5, 5)
    head, bag = InsightHead(8), InsightHead(8, bag=True)
    bag.load_state_dict(head.state_dict())

    one_by_one = torch.cat([head(image[None]).probability for image in spatial])

    assert torch.allclose(head(spatial).probability, one_by_one, atol=1e-6)
    assert bag(spatial).probability.shape == (1, 1)


def test_tiles_taken_one_after_the_other_pool_to_what_the_bag_gives() -> None:
    torch.manual_seed(0)
    tiles = torch.randn(6, 8, 5, 5)
    bag = InsightHead(8, findings=2, bag=True).eval()
    single = InsightHead(8, findings=2).eval()
    single.load_state_dict(bag.state_dict())
    streamed = StreamedSmoothMax(alpha_for(6 * 25))

    for chunk in tiles.split(4):
        streamed.add(single(chunk).heatmap)

    assert torch.allclose(streamed.probability().float(), bag(tiles).probability[0], atol=1e-6)


def test_a_stream_without_maps_has_no_probability() -> None:
    with pytest.raises(ValueError, match="no map"):
        StreamedSmoothMax(8.0).probability()


def test_label_smoothing_moves_the_target_towards_a_half() -> None:
    output = InsightOutput(torch.tensor([[0.8]]), torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1))

    smoothed = insight_loss(output, torch.ones(1, 1), label_smoothing=0.2)

    assert smoothed.item() == pytest.approx(-0.9 * math.log(0.8) - 0.1 * math.log(0.2), rel=1e-5)


def test_a_spatial_layer_norm_asks_for_its_grid() -> None:
    with pytest.raises(ValueError, match="grid"):
        InsightHead(8, layer_norm="spatial")


def test_the_loss_falls_when_the_head_learns_and_its_penalty_spares_the_context() -> None:
    torch.manual_seed(0)
    head, spatial = InsightHead(8), torch.randn(8, 8, 6, 6)
    target = torch.tensor([[0.0], [1.0]]).repeat(4, 1)
    spatial[1::2, :, 2, 2] += 3
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = insight_loss(head(spatial), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    optimizer.zero_grad()
    decoupling_penalty(head(spatial).detection_logits, 0.01).backward()

    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is None or not p.grad.any() for p in head.context.parameters())
