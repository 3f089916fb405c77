"""The last two stages of an encoder: what the additive map and the multi-scale head read.

Letters of shapes: B images, S pixels along a side, C channels, h and w rows and columns.
"""

from typing import NamedTuple

from timm.models.davit import DaVit
from timm.models.regnet import RegNet
from torch import Tensor, nn

from model.encoders.encoder import Encoder, Features


class Pyramid(NamedTuple):
    """What an encoder sees, with the two maps that it pools its embedding from.

    Shapes:
        features: see ``Features``
        fine: float (B, C, 2h, 2w), the stage before the last
        coarse: float (B, C', h, w), the last stage; its mean over places makes the embedding
    """

    features: Features
    fine: Tensor
    coarse: Tensor


class FeaturePyramid:
    """An encoder of stages, watched at its last two.

    Raises:
        TypeError: the encoder is no DaViT and no RegNet; a ViT has one scale alone.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._fine, self._coarse = _last_stages(encoder)
        self.norm = _norm_after_pooling(encoder)

    def __call__(self, images: Tensor) -> Pyramid:
        """Encode float images (B, 1, S, S), standardised as the bundle's preprocessing says."""
        seen: dict[nn.Module, Tensor] = {}

        def keep(stage: nn.Module, _inputs: object, output: Tensor) -> None:
            seen[stage] = output

        hooks = [stage.register_forward_hook(keep) for stage in (self._fine, self._coarse)]
        try:
            features = self.encoder(images)
        finally:
            for hook in hooks:
                hook.remove()
        return Pyramid(features, seen[self._fine], seen[self._coarse])


def _trunk(encoder: Encoder) -> DaVit | RegNet:
    if isinstance(encoder, nn.Module):
        for module in encoder.modules():
            if isinstance(module, DaVit | RegNet):
                return module
    raise TypeError(f"{type(encoder).__name__} has no stages: it is no DaViT and no RegNet")


def _last_stages(encoder: Encoder) -> tuple[nn.Module, nn.Module]:
    trunk = _trunk(encoder)
    if isinstance(trunk, DaVit):
        *_, fine, coarse = trunk.stages.children()
        return fine, coarse
    return trunk.get_submodule("s3"), trunk.get_submodule("s4")


def _norm_after_pooling(encoder: Encoder) -> nn.LayerNorm | None:
    """Give the LayerNorm between pooling and embedding; RegNet has none."""
    trunk = _trunk(encoder)
    norm = trunk.head.get_submodule("norm") if isinstance(trunk, DaVit) else None
    return norm if isinstance(norm, nn.LayerNorm) else None
