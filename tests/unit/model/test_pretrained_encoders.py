"""Encoders that come pretrained: official names and sizes, and twins that run in a second."""

import json

import pytest
import torch
from torch import nn

from common.errors import CheckpointError
from model.encoders.building import build_encoder
from model.encoders.colour_input import IMAGENET_MEAN, IMAGENET_STD
from model.encoders.medimageinsight import (
    MedImageInsight,
    MedImageInsightSpec,
    build_image_encoder,
    convert_state_dict,
    official_name,
)
from model.encoders.medimageinsight_text import MedImageInsightText, TextSpec
from model.encoders.vit import DinoV2Spec, UniSpec, VitEncoder
from tests.pretrained_twins import DINOV2_TWIN, MEDIMAGEINSIGHT_TWIN, TEXT_TWIN, UNI_TWIN

PUBLISHED_BYTES = 2_464_060_700  # of the official file, by its entry in Git LFS
PUBLISHED_HEADER_BYTES = 75_032


def test_the_official_network_is_the_published_file_to_the_byte() -> None:
    with torch.device("meta"):
        image = MedImageInsight(MedImageInsightSpec()).state_dict()
        text = MedImageInsightText(TextSpec()).state_dict()
    davit = "davit."
    shapes = {
        official_name(name.removeprefix(davit)) if name.startswith(davit) else name: list(t.shape)
        for name, t in {**image, **text}.items()
    }
    header, end = {}, 0
    for name in sorted(shapes):
        begin, end = end, end + 4 * int(torch.Size(shapes[name]).numel())
        header[name] = {"dtype": "F32", "shape": shapes[name], "data_offsets": [begin, end]}
    header_bytes = 8 + -(-len(json.dumps(header, separators=(",", ":"))) // 8) * 8

    assert len(shapes) == 601
    assert header_bytes == PUBLISHED_HEADER_BYTES
    assert header_bytes + end == PUBLISHED_BYTES


def test_official_names_go_there_and_back() -> None:
    twin = build_image_encoder(
        MEDIMAGEINSIGHT_TWIN.widths, MEDIMAGEINSIGHT_TWIN.heads, MEDIMAGEINSIGHT_TWIN.depths
    )
    official = {official_name(name): tensor for name, tensor in twin.state_dict().items()}

    assert all(name.startswith("image_encoder.") for name in official)
    twin.load_state_dict(convert_state_dict(official), strict=True)


@pytest.mark.parametrize("name", ["image_encoder.stem.conv.weight", "image_encoder.head.fc.bias"])
def test_a_name_that_is_not_official_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match=name):
        convert_state_dict({name: torch.zeros(1)})


def test_a_state_dict_of_something_else_is_refused() -> None:
    with pytest.raises(CheckpointError, match="no checkpoint of MedImageInsight"):
        convert_state_dict({"layer.weight": torch.zeros(1)})


@pytest.mark.parametrize(
    ("spec", "side", "embedding", "spatial"),
    [
        (MedImageInsightSpec(), 480, 1024, (2048, 15, 15)),
        (DinoV2Spec(), 518, 1024, (1024, 37, 37)),
        (DinoV2Spec(), 224, 1024, (1024, 16, 16)),
        (UniSpec(), 224, 1024, (1024, 14, 14)),
    ],
)
def test_full_size_shapes_are_those_that_the_protocol_states(
    spec: MedImageInsightSpec | DinoV2Spec | UniSpec,
    side: int,
    embedding: int,
    spatial: tuple[int, int, int],
) -> None:
    with torch.device("meta"), torch.inference_mode():
        encoder = build_encoder(spec.model_dump())
        features = encoder(torch.zeros(2, 1, side, side))

    assert features.embedding.shape == (2, embedding)
    assert features.spatial.shape == (2, *spatial)
    assert encoder.embedding_width == embedding
    assert encoder.spatial_width == spatial[0]
    assert side // encoder.spatial_stride_px == spatial[1]


@pytest.mark.parametrize("spec", [MEDIMAGEINSIGHT_TWIN, DINOV2_TWIN, UNI_TWIN])
def test_grey_stands_for_three_channels(spec: MedImageInsightSpec | DinoV2Spec | UniSpec) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(spec.model_dump())
    grey = torch.rand(2, 1, 112, 112)

    with torch.inference_mode():
        of_grey = encoder(grey)
        of_colour = encoder(grey.expand(-1, 3, -1, -1))

    assert torch.equal(of_grey.embedding, of_colour.embedding)
    assert torch.equal(of_grey.spatial, of_colour.spatial)


def test_channels_are_standardised_as_on_imagenet() -> None:
    torch.manual_seed(0)
    encoder = MedImageInsight(MEDIMAGEINSIGHT_TWIN).eval()
    images = torch.rand(2, 3, 96, 96)
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(3, 1, 1)

    with torch.inference_mode():
        embedding = encoder(images).embedding
        features = encoder.davit((images - mean) / std) @ encoder.image_projection

    expected = features / features.norm(dim=-1, keepdim=True)
    assert (embedding - expected).abs().max().item() < 1e-6
    assert (embedding.norm(dim=-1) - 1).abs().max().item() < 1e-6


@pytest.mark.parametrize("spec", [MEDIMAGEINSIGHT_TWIN, DINOV2_TWIN, UNI_TWIN])
def test_two_calls_give_the_same_numbers_whatever_drops_in_training(
    spec: MedImageInsightSpec | DinoV2Spec | UniSpec,
) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(spec.model_dump(), drop_path=0.5)
    assert isinstance(encoder, nn.Module)
    images = torch.rand(8, 1, 112, 112)

    with torch.inference_mode():
        in_training = [encoder.train()(images).embedding for _ in range(2)]
        at_work = [encoder.eval()(images).embedding for _ in range(2)]

    assert not torch.equal(*in_training)
    assert torch.equal(*at_work)


def test_the_finer_map_comes_from_the_stage_before_the_last() -> None:
    encoder = MedImageInsight(MEDIMAGEINSIGHT_TWIN.model_copy(update={"spatial_stage": 2})).eval()

    with torch.inference_mode():
        features = encoder(torch.rand(1, 1, 480, 480))
        _, maps = encoder.forward_stages(torch.rand(1, 1, 480, 480))

    assert features.spatial.shape == (1, encoder.spatial_width, 30, 30)
    assert [tuple(m.shape[2:]) for m in maps] == [(120, 120), (60, 60), (30, 30), (15, 15)]


def test_positions_are_stretched_to_another_size() -> None:
    torch.manual_seed(0)
    encoder = VitEncoder(DINOV2_TWIN).eval()

    with torch.inference_mode():
        features = encoder(torch.rand(1, 1, 224, 224))

    assert DINOV2_TWIN.trained_px != 224
    assert features.spatial.shape == (1, DINOV2_TWIN.width, 16, 16)


def test_the_text_encoder_reads_both_ways_and_no_padding() -> None:
    torch.manual_seed(0)
    text = MedImageInsightText(TEXT_TWIN).eval()
    for parameter in text.parameters():
        nn.init.normal_(parameter, std=0.3)
    end = TEXT_TWIN.vocabulary - 1
    ids = torch.full((3, 77), end)
    ids[:, :5] = torch.tensor([end - 1, 5, 6, 7, end])
    ids[1, 6:] = 0  # another padding
    ids[2, 3] = 8  # another last word
    mask = torch.zeros(3, 77, dtype=torch.int64)
    mask[:, :5] = 1

    with torch.inference_mode():
        one, padded_otherwise, other = text(ids, mask)
        tokens = text.lang_encoder(ids, mask)

    assert (one - padded_otherwise).abs().max().item() < 1e-6
    assert (one - other).abs().max().item() > 1e-3
    assert (tokens[0, 1] - tokens[2, 1]).abs().max().item() > 1e-3  # an earlier word saw it too
