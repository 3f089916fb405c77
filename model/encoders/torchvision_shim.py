"""Make torchvision, and so timm, importable beside the CPU build of torch.

The package index serves a torchvision whose compiled operators need CUDA. Beside a CPU torch they
fail to load, and ``import torchvision`` then dies for want of two operator names that nothing here
calls. Declaring the names is enough. With a matching pair of builds this does nothing.
"""

import sys

import torch

MISSING_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

_declared: list[torch.library.Library] = []  # a library's declarations live as long as it does


def declare_missing_operators() -> None:
    """Declare torchvision's detection operators on a CPU torch; safe to repeat."""
    if "+cpu" not in torch.__version__ or "torchvision" in sys.modules or _declared:
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in MISSING_OPERATORS:
        library.define(schema)
    _declared.append(library)


declare_missing_operators()
