"""Grey or colour in [0, 1] becomes the standardised colour that pretrained encoders expect."""

import torch
from torch import Tensor

Channels = tuple[float, float, float]

IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)


def standardise_channels(images: Tensor, mean: Channels, std: Channels) -> Tensor:
    """Standardise each of three channels; a grey image stands for all three.

    The numbers are constants of the program, not buffers: weights stay what the checkpoint holds,
    and nothing has to be copied to the device.

    Shapes:
        images: float (B, 1, S, S) or (B, 3, S, S), in [0, 1]
        returns: float (B, 3, S, S)
    """
    channels = images.shape[1]
    if channels not in (1, 3):
        raise ValueError(f"images have one channel or three, not {channels}")
    planes = images.expand(-1, 3, -1, -1).unbind(1)
    return torch.stack([(plane - m) / s for plane, m, s in zip(planes, mean, std, strict=True)], 1)
