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
    """A network that turns images into features; heads are built to its widths.

    | kind | S | embedding | spatial |
    |---|---|---|---|
    | medimageinsight | 480 | 1024, of length 1 | 2048 x 15 x 15, or 1024 x 30 x 30 |
    | dinov2 | 518, or 224 | 1024 | 1024 x 37 x 37, or 1024 x 16 x 16 |
    | uni | 224 | 1024 | 1024 x 14 x 14 |
    | compact_davit, compact_regnet | the bundle's | its own | its own |
    """

    embedding_width: int
    spatial_width: int
    spatial_stride_px: int

    def __call__(self, images: Tensor) -> Features:
        """Encode float images (B, 1, S, S), scaled as the bundle's preprocessing says.

        The compact encoders take standardised grey. The encoders that come pretrained on colour
        take [0, 1], grey or (B, 3, S, S), and standardise each channel themselves: a mean per
        channel cannot be applied to an image of one.
        """
        ...
