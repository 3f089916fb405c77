"""The network of the slide pipeline: one encoder, and INSIGHT on the feature map of each tile."""

from torch import Tensor, nn

from model.encoders.building import build_encoder
from model.encoders.encoder import Encoder
from model.insight import InsightHead, InsightOutput


class SlideNetwork(nn.Module):
    """INSIGHT over tiles: each is an element of the bag, and context never crosses its border.

    There is no head beside INSIGHT: the slide's probability is what its cells pool to.

    Shapes:
        tiles: float (B, channels, S, S), scaled as the bundle's tiling says
        returns: see ``InsightOutput``, with K = 1, the whole batch one bag
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.insight = InsightHead(encoder.spatial_width, bag=True)

    def forward(self, tiles: Tensor) -> InsightOutput:
        """Map a batch of tiles; see the class for shapes."""
        return self.insight(self.encoder(tiles).spatial)


def build_slide_network(encoder: dict[str, object]) -> SlideNetwork:
    """Build an untrained network from the ``encoder`` entry of a bundle."""
    return SlideNetwork(build_encoder(encoder))
