"""Vision transformers of the large size: DINOv2 with registers for CT, a UNI-shaped for slides.

UNI's licence (CC-BY-NC-ND 4.0) forbids building on it: the shape is here, whose weights a site
puts into it is the site's own matter.
"""

from typing import Literal

import timm
from pydantic import BaseModel, ConfigDict, Field
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from model.encoders.colour_input import IMAGENET_MEAN, IMAGENET_STD, Channels, standardise_channels
from model.encoders.encoder import Features


class VitSpec(BaseModel):
    """The shape of a vision transformer; smaller numbers make a twin for tests."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(default=1024, ge=1)
    depth: int = Field(default=24, ge=1)
    heads: int = Field(default=16, ge=1)
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD


class DinoV2Spec(VitSpec):
    """ViT-L/14 with four registers; positions were learnt on 37 x 37 patches of 518 pixels.

    Source: Oquab et al. 2023, arXiv:2304.07193; Darcet et al. 2023, arXiv:2309.16588.
    """

    kind: Literal["dinov2"] = "dinov2"
    trained_px: int = Field(default=518, ge=14, multiple_of=14)


class UniSpec(VitSpec):
    """ViT-L/16 in the shape of UNI; positions were learnt on 14 x 14 patches of 224 pixels.

    Source: Chen et al. 2024, Nature Medicine 30, 850-862.
    """

    kind: Literal["uni"] = "uni"
    trained_px: int = Field(default=224, ge=16, multiple_of=16)


def build_vit(spec: DinoV2Spec | UniSpec, drop_path: float = 0.0) -> VisionTransformer:
    """Build an untrained transformer without classifier; takes every multiple of its patch."""
    trunk = {"dinov2": "vit_large_patch14_reg4_dinov2", "uni": "vit_large_patch16_224"}[spec.kind]
    vit = timm.create_model(
        trunk,
        pretrained=False,
        num_classes=0,
        embed_dim=spec.width,
        depth=spec.depth,
        num_heads=spec.heads,
        img_size=spec.trained_px,
        init_values=1e-5,
        dynamic_img_size=True,
        drop_path_rate=drop_path,
    )
    if not isinstance(vit, VisionTransformer):
        raise TypeError(f"timm's {trunk} is no vision transformer")
    return vit.eval()


class VitEncoder(nn.Module):
    """The class token is the embedding, the patch tokens are the map; registers are dropped.

    Shapes:
        images: float (B, 1, S, S) or (B, 3, S, S) in [0, 1], S a multiple of the patch
        embedding: float (B, width)
        spatial: float (B, width, S / patch, S / patch): 37 x 37 of 518 and 16 x 16 of 224 pixels
            for patches of 14, 14 x 14 of 224 for patches of 16; both after the last LayerNorm
    """

    def __init__(self, spec: DinoV2Spec | UniSpec, drop_path: float = 0.0) -> None:
        super().__init__()
        self.embedding_width = self.spatial_width = spec.width
        self.spatial_stride_px = 14 if spec.kind == "dinov2" else 16
        self._spec = spec
        self.vit = build_vit(spec, drop_path)

    def forward(self, images: Tensor) -> Features:
        """Encode a batch; see the class for shapes."""
        standardised = standardise_channels(images, self._spec.mean, self._spec.std)
        rows, columns = (side // self.spatial_stride_px for side in images.shape[2:])
        tokens = self.vit.forward_features(standardised)  # (B, prefix + rows * columns, width)
        places = tokens[:, self.vit.num_prefix_tokens :].transpose(1, 2)
        return Features(tokens[:, 0], places.unflatten(2, (rows, columns)))
