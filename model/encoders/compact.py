"""A DaViT small enough to live in the repository and to run on a laptop's CPU."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from timm.models.davit import DaVit
from torch import Tensor, nn

from model.encoders.encoder import Features


class CompactSpec(BaseModel):
    """The shape of a compact encoder; ``encoder`` in a bundle is one of these.

    ``widths`` must be multiples of ``heads``, stage by stage. ``spatial_stage`` (0 to 3) is the
    stage whose feature map, of stride 4, 8, 16 or 32 pixels, is handed to INSIGHT.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["compact_davit"] = "compact_davit"
    widths: tuple[int, int, int, int] = (32, 64, 128, 256)
    depths: tuple[int, int, int, int] = (1, 1, 3, 1)
    heads: tuple[int, int, int, int] = (1, 2, 4, 8)
    window_size: int = Field(default=6, ge=2)
    spatial_stage: int = Field(default=2, ge=0, le=3)


class CompactEncoder(nn.Module):
    """Four stages of window attention over places and group attention over channels, in turn.

    Shapes:
        images: float (B, 1, S, S), S a multiple of 32
        embedding: float (B, widths[3]), mean of the last stage, then LayerNorm
        spatial: float (B, widths[spatial_stage], S / stride, S / stride)

    Source: Ding et al. 2022, DaViT, arXiv:2204.03645, with the depth-wise 3x3 positions, the 3x3
    downsampling and the token-scaled channel attention of Florence, as built by timm.
    """

    def __init__(self, spec: CompactSpec, drop_path: float = 0.0) -> None:
        super().__init__()
        self.embedding_width = spec.widths[3]
        self.spatial_width = spec.widths[spec.spatial_stage]
        self.spatial_stride_px = 4 * 2**spec.spatial_stage
        self._spatial_stage = spec.spatial_stage
        self.davit = DaVit(
            in_chans=1,
            depths=spec.depths,
            embed_dims=spec.widths,
            num_heads=spec.heads,
            window_size=spec.window_size,
            down_kernel_size=3,
            channel_attn_v2=True,
            named_blocks=True,
            drop_path_rate=drop_path,
            num_classes=0,
        )

    def forward(self, images: Tensor) -> Features:
        """Encode a batch; see the class for shapes."""
        x = self.davit.stem(images)
        spatial = x
        for number, stage in enumerate(self.davit.stages.children()):
            x = stage(x)
            if number == self._spatial_stage:
                spatial = x
        return Features(self.davit.forward_head(x, pre_logits=True), spatial)
