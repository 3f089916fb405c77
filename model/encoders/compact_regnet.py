"""A RegNet small enough for a laptop's CPU: the encoder of the compact chest bundle.

Trained from nothing on a few thousand radiographs, convolutions with batch norm learn more per
hour of CPU than attention of the same size does.
"""

from typing import Literal

import timm
from pydantic import BaseModel, ConfigDict, Field
from timm.models.regnet import RegNet
from torch import Tensor, nn

from model.encoders.encoder import Features


class CompactRegNetSpec(BaseModel):
    """Which RegNet, and which of its four stages INSIGHT reads.

    ``spatial_stage`` (0 to 3) has stride 4, 8, 16 or 32 pixels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["compact_regnet"] = "compact_regnet"
    trunk: Literal["regnety_002", "regnety_004", "regnety_006", "regnety_008"] = "regnety_004"
    spatial_stage: int = Field(default=2, ge=0, le=3)


class CompactRegNet(nn.Module):
    """Four stages of grouped convolutions with squeeze-and-excitation.

    Shapes:
        images: float (B, 1, S, S), S a multiple of 32
        embedding: float (B, D), mean of the last stage over its places
        spatial: float (B, C, S / stride, S / stride), of stage ``spatial_stage``

    Source: Radosavovic et al. 2020, Designing Network Design Spaces, arXiv:2003.13678, as built
    by timm; one input channel, random weights.
    """

    def __init__(self, spec: CompactRegNetSpec, drop_path: float = 0.0) -> None:
        super().__init__()
        regnet = timm.create_model(spec.trunk, in_chans=1, num_classes=0, drop_path_rate=drop_path)
        if not isinstance(regnet, RegNet):
            raise TypeError(f"timm's {spec.trunk} is no RegNet")
        self.regnet = regnet
        stages = regnet.feature_info[1:]
        self.embedding_width = int(stages[-1]["num_chs"])
        self.spatial_width = int(stages[spec.spatial_stage]["num_chs"])
        self.spatial_stride_px = int(stages[spec.spatial_stage]["reduction"])
        self._spatial_stage = spec.spatial_stage

    def forward(self, images: Tensor) -> Features:
        """Encode a batch; see the class for shapes."""
        x = self.regnet.stem(images)
        spatial = x
        for number in range(4):
            x = self.regnet.get_submodule(f"s{number + 1}")(x)
            if number == self._spatial_stage:
                spatial = x
        return Features(self.regnet.forward_head(x, pre_logits=True), spatial)
