"""MedImageInsight's image encoder: a DaViT of 361 million parameters, and a projection.

Source: Codella et al. 2024, MedImageInsight, arXiv:2410.06542; timm builds the same network as
``davit_huge_fl``, tensor for tensor, under other names.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import timm
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from timm.models.davit import DaVit
from torch import Tensor, nn

from common.errors import CheckpointError
from model.encoders.colour_input import IMAGENET_MEAN, IMAGENET_STD, Channels, standardise_channels
from model.encoders.encoder import Features
from model.encoders.medimageinsight_text import TextSpec

Four = tuple[int, int, int, int]

PREFIX = "image_encoder."
PROJECTION = "image_projection"

# The official names of blocks and layers beside timm's, in the order in which they are replaced.
_NAMES: tuple[tuple[str, str], ...] = (
    (r"^convs\.0\.proj\.", "stem.conv."),
    (r"^convs\.0\.norm\.", "stem.norm."),
    (r"^convs\.([123])\.proj\.", r"stages.\1.downsample.conv."),
    (r"^convs\.([123])\.norm\.", r"stages.\1.downsample.norm."),
    (r"^blocks\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"\.conv1\.fn\.dw\.", ".cpe1.proj."),
    (r"\.conv2\.fn\.dw\.", ".cpe2.proj."),
    (r"\.(?:window|channel)_attn\.norm\.", ".norm1."),
    (r"\.(?:window|channel)_attn\.fn\.", ".attn."),
    (r"\.ffn\.norm\.", ".norm2."),
    (r"\.ffn\.fn\.net\.", ".mlp."),
    (r"^norms\.", "head.norm."),
)


class MedImageInsightSpec(BaseModel):
    """The shape of the encoder; the defaults are the official network.

    ``spatial_stage`` is the stage whose map INSIGHT reads: 3 has 15 x 15 places for 480 pixels,
    2 has 30 x 30. ``mean`` and ``std`` are of the channels of images in [0, 1]. ``text`` is the
    text encoder's, which only zero-shot scoring loads.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["medimageinsight"] = "medimageinsight"
    widths: Four = (256, 512, 1024, 2048)
    heads: Four = (8, 16, 32, 64)
    depths: Four = (1, 1, 9, 1)
    embedding_width: int = Field(default=1024, ge=1)
    spatial_stage: int = Field(default=3, ge=0, le=3)
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD
    text: TextSpec = TextSpec()


def build_image_encoder(
    embed_dims: Sequence[int] = (256, 512, 1024, 2048),
    num_heads: Sequence[int] = (8, 16, 32, 64),
    depths: Sequence[int] = (1, 1, 9, 1),
    *,
    drop_path: float = 0.0,
) -> DaVit:
    """Build the untrained image encoder without its projection; in eval mode.

    The module's call takes standardised images, float (B, 3, H, W), and gives the pooled and
    normalised features (B, embed_dims[3]); ``forward_features`` gives the last map
    (B, embed_dims[3], H / 32, W / 32). Eval mode, because upstream's wrapper forgot it and two
    calls then differ.

    Args:
        embed_dims: widths of the four stages, each 32 times its heads in the official network.
        num_heads: heads of the attention over places, and groups of that over channels.
        depths: pairs of blocks in each stage.
        drop_path: greatest rate of dropped blocks while training; upstream's is 0.2.
    """
    davit = timm.create_model(
        "davit_huge_fl",
        pretrained=False,
        num_classes=0,
        embed_dims=tuple(embed_dims),
        num_heads=tuple(num_heads),
        depths=tuple(depths),
        drop_path_rate=drop_path,
    )
    if not isinstance(davit, DaVit):
        raise TypeError("timm's davit_huge_fl is no DaViT")
    return davit.eval()


def convert_name(official: str) -> str:
    """Give timm's name of a tensor ``image_encoder.…``."""
    name = official.removeprefix(PREFIX)
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def official_name(name: str) -> str:
    """Give the official name of a tensor of ``build_image_encoder``; undoes ``convert_name``."""
    kind = "window" if ".spatial_block." in name else "channel"
    for pattern, replacement in (
        (r"^stem\.", "convs.0."),
        (r"^stages\.(\d+)\.downsample\.", r"convs.\1."),
        (r"^(convs\.\d+)\.conv\.", r"\1.proj."),
        (r"^stages\.(\d+)\.blocks\.", r"blocks.\1."),
        (r"\.cpe([12])\.proj\.", r".conv\1.fn.dw."),
        (r"\.norm1\.", f".{kind}_attn.norm."),
        (r"\.attn\.", f".{kind}_attn.fn."),
        (r"\.norm2\.", ".ffn.norm."),
        (r"\.mlp\.", ".ffn.fn.net."),
        (r"^head\.norm\.", "norms."),
    ):
        name = re.sub(pattern, replacement, name)
    return PREFIX + name


def convert_state_dict(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the official ``image_encoder.*`` tensors to those of ``build_image_encoder``.

    Tensors of the text encoder and the projections are left out: other modules hold them. The
    result is meant for a strict load; no name is dropped or guessed.

    Raises:
        CheckpointError: there is no ``image_encoder.*`` tensor, or one goes by no official name.
    """
    converted: dict[str, Tensor] = {}
    for official, tensor in state_dict.items():
        if not official.startswith(PREFIX):
            continue
        name = convert_name(official)
        if PREFIX + name == official or official_name(name) != official:
            raise CheckpointError(f"{official} is no tensor of MedImageInsight's image encoder")
        converted[name] = tensor
    if not converted:
        raise CheckpointError(f"no tensor of {PREFIX}*: this is no checkpoint of MedImageInsight")
    return converted


class MedImageInsight(nn.Module):
    """The image encoder with its projection to the space that images and texts share.

    Shapes:
        images: float (B, 1, S, S) or (B, 3, S, S) in [0, 1]; S = 480 in the official network
        embedding: float (B, 1024), of length 1
        spatial: float (B, widths[stage], S / stride, S / stride), before pooling and LayerNorm
    """

    def __init__(self, spec: MedImageInsightSpec, drop_path: float = 0.0) -> None:
        super().__init__()
        self.embedding_width = spec.embedding_width
        self.spatial_width = spec.widths[spec.spatial_stage]
        self.spatial_stride_px = 4 * 2**spec.spatial_stage
        self.spec = spec
        self.davit = build_image_encoder(spec.widths, spec.heads, spec.depths, drop_path=drop_path)
        projection = torch.empty(spec.widths[3], spec.embedding_width)
        self.image_projection = nn.Parameter(nn.init.trunc_normal_(projection, std=0.02))

    def forward_stages(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Give the embedding and the maps of all four stages, of stride 4, 8, 16 and 32."""
        x = self.davit.stem(standardise_channels(images, self.spec.mean, self.spec.std))
        maps: list[Tensor] = []
        for stage in self.davit.stages.children():
            x = stage(x)
            maps.append(x)
        features = self.davit.forward_head(x, pre_logits=True)  # (B, widths[3])
        return F.normalize(features @ self.image_projection, dim=-1), tuple(maps)

    def forward(self, images: Tensor) -> Features:
        """Encode a batch; see the class for shapes."""
        embedding, maps = self.forward_stages(images)
        return Features(embedding, maps[self.spec.spatial_stage])
