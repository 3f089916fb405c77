"""Encoders: images in, one embedding and one spatial feature map out."""

from model.encoders import torchvision_shim as _torchvision_shim  # noqa: F401  before timm, always
