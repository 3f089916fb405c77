"""What every encoder offers: images in, one embedding and one spatial feature map out.

Letters of shapes: B images, S pixels along a side of the square input, D width of the embedding,
C width of the feature map, h and w its rows and columns.
"""

from typing import NamedTuple, Protocol

from torch import Tensor


class Features(NamedTuple):
    """What an encoder sees in a batch of images.

    Shapes:
        embedding: float (B, D), one vector for the whole image
        spatial: float (B, C, h, w), one vector per place; row 0 is the top of the image
    """

    embedding: Tensor
    spatial: Tensor


class Encoder(Protocol):
    """A network that turns images into features; heads are built to its widths."""

    embedding_width: int
    spatial_width: int
    spatial_stride_px: int

    def __call__(self, images: Tensor) -> Features:
        """Encode float images (B, 1, S, S), standardised as the bundle's preprocessing says."""
        ...
