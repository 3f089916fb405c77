"""The additive map adds up to the score that it explains, whatever stands between."""

import pytest
import torch
from torch import nn

from model.additive_map import additive_map, triage_map
from model.encoders.compact import CompactSpec
from model.encoders.compact_regnet import CompactRegNetSpec
from model.encoders.feature_pyramid import FeaturePyramid
from model.network import build_network

TOLERANCE = 1e-6
SMALL = CompactSpec(widths=(8, 16, 24, 32), depths=(1, 1, 1, 1), heads=(1, 2, 3, 4))


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("normed", [False, True])
def test_the_mean_of_the_map_and_its_bias_are_the_score(
    normed: bool, projected: bool, unit: bool
) -> None:
    torch.manual_seed(0)
    spatial = torch.randn(3, 16, 5, 7) * 4 + 1
    norm = nn.LayerNorm(16)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    projection = torch.randn(16, 6) if projected else None
    direction, intercept = torch.randn(6 if projected else 16), torch.tensor(0.3)
    embedding = spatial.mean((2, 3))
    embedding = norm(embedding) if normed else embedding
    embedding = embedding @ projection if projection is not None else embedding
    embedding = nn.functional.normalize(embedding, dim=1) if unit else embedding

    explained = additive_map(
        spatial,
        direction,
        intercept,
        norm=norm if normed else None,
        projection=projection,
        unit=unit,
    )

    wanted = embedding @ direction + intercept
    assert (explained.score() - wanted).abs().max().item() < TOLERANCE * (1 + wanted.abs().max())


@pytest.mark.parametrize("spec", [SMALL, CompactRegNetSpec(trunk="regnety_002")])
def test_the_map_of_a_network_adds_up_to_its_triage_head(
    spec: CompactSpec | CompactRegNetSpec,
) -> None:
    torch.manual_seed(0)
    network = build_network(spec.model_dump()).eval()
    for module in network.modules():  # norms away from their start, where a bias could hide
        if isinstance(module, nn.LayerNorm):
            nn.init.normal_(module.weight, 1.0, 0.5)
            nn.init.normal_(module.bias)
    pyramid = FeaturePyramid(network.encoder)

    with torch.inference_mode():
        seen = pyramid(torch.randn(2, 1, 64, 64))
        explained = triage_map(network.triage, seen.coarse, pyramid.norm)
        wanted = network.triage(seen.features.embedding)[:, 0]

    assert explained.cells.shape == (2, 2, 2)
    assert seen.fine.shape[2:] == (4, 4)
    assert (explained.score() - wanted).abs().max().item() < TOLERANCE


def test_a_place_that_speaks_for_a_finding_raises_its_own_cell_most() -> None:
    torch.manual_seed(0)
    direction = torch.randn(16)
    spatial = torch.randn(1, 16, 6, 6) * 0.1
    spatial[0, :, 4, 1] += direction

    explained = additive_map(spatial, direction, torch.tensor(0.0), norm=nn.LayerNorm(16))

    assert int(explained.cells[0].argmax()) == 4 * 6 + 1
    assert 0 <= explained.heatmap().min().item() <= explained.heatmap().max().item() <= 1


def test_an_encoder_without_stages_is_refused() -> None:
    with pytest.raises(TypeError, match="stages"):
        FeaturePyramid(nn.Identity())  # pyright: ignore[reportArgumentType]
