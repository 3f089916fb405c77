"""INSIGHT on two stages of an encoder at once: our own step beyond the paper, an ablation arm."""

from torch import Tensor
from torch.nn.functional import interpolate

from model.insight import ChannelLayerNorm, InsightHead, InsightOutput, projection


class MultiScaleInsightHead(InsightHead):
    """Detect and veto on the finer grid, with what the coarser stage knows laid under it.

    Each stage is projected to 128 channels; the coarser one is interpolated and added.

    Shapes:
        spatial: float (B, C, h, w)
        other: float (B, C', h', w'), another stage of the same images, finer or coarser
        returns: see ``InsightOutput``, on the finer of the two grids

    Args:
        spatial_width: C.
        other_width: C'.
        findings: K.
        alpha: as in ``InsightHead``.
    """

    def __init__(
        self,
        spatial_width: int,
        other_width: int,
        findings: int = 1,
        *,
        alpha: float | None = None,
    ) -> None:
        super().__init__(spatial_width, findings, alpha=alpha)
        self.other_projection = projection(other_width, ChannelLayerNorm)

    def forward(self, spatial: Tensor, other: Tensor) -> InsightOutput:  # pyright: ignore[reportIncompatibleMethodOverride]  two stages instead of one
        """Say where and whether; see the class for shapes."""
        first, second = self.projection(spatial), self.other_projection(other)
        grid = max(first.shape[2:], second.shape[2:])
        projected = _spread(first, grid) + _spread(second, grid)  # (B, 128, h, w)
        detection = self.detection(projected)
        heatmap = detection.sigmoid() * (1.0 - self.context(projected).sigmoid())
        return self.pool(heatmap, detection)


def _spread(x: Tensor, grid: tuple[int, ...]) -> Tensor:
    if tuple(x.shape[2:]) == tuple(grid):
        return x
    return interpolate(x, size=tuple(grid), mode="bilinear", align_corners=False)
