"""How a network runs: on which device, in which precision, eager or compiled at fixed batch sizes.

One setting, FIRSTREAD_EXECUTION, chooses between eager and compiled. The rest follows from the
hardware and from the encoder.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from common.errors import ConfigurationError
from common.settings import get_settings
from model.encoders.encoder import Encoder, Features

ExecutionMode = Literal["eager", "compiled"]
# The large encoders: half precision is what they are usually run in, and where it pays.
PRETRAINED = frozenset(("medimageinsight", "dinov2", "uni"))
# Each size is compiled, or captured as a CUDA graph, once; a batch is filled up to the next one.
BATCH_SIZES = (1, 2, 4, 8, 16)

Module = TypeVar("Module", bound=nn.Module)


class Execution(NamedTuple):
    """What was chosen.

    Attributes:
        device: where the network lies.
        dtype: of the encoder; heads are always float32.
        compiled: whether torch.compile makes the forward pass, with CUDA graphs on CUDA.
    """

    device: torch.device
    dtype: torch.dtype
    compiled: bool


def choose_execution(
    kind: object, device: str = "auto", mode: ExecutionMode | None = None
) -> Execution:
    """Choose for an encoder's kind; ``mode`` None is the site's setting.

    Raises:
        ConfigurationError: there is no such device.
    """
    chosen = choose_device(device)
    half = kind in PRETRAINED and has_bfloat16(chosen)
    return Execution(
        chosen,
        torch.bfloat16 if half else torch.float32,
        (mode or get_settings().execution) == "compiled",
    )


def choose_device(device: str) -> torch.device:
    """Resolve "auto" and refuse a device that is not there.

    Raises:
        ConfigurationError: the name is unknown or the device absent.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(f"device {device!r} cannot be used: {error}") from error
    return chosen


def has_bfloat16(device: torch.device) -> bool:
    """Say whether the hardware multiplies bfloat16 itself.

    A CPU without such instructions emulates them: MedImageInsight is 7 times slower there in
    bfloat16 than in float32. Software support alone is therefore not asked for.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return False


def load_module(
    build: Callable[[], Module], weights: Mapping[str, Tensor], *, large: bool
) -> Module:
    """Build a network and give it its weights, strictly; in eval mode.

    A large one is built without storage and takes the tensors as they are: nothing is drawn at
    random and then overwritten, and a mapped file is read once.

    Raises:
        RuntimeError: names or shapes do not fit.
    """
    with torch.device("meta") if large else nullcontext():
        module = build()
    module.load_state_dict(
        {name: tensor.float() for name, tensor in weights.items()}, strict=True, assign=large
    )
    return module.eval()


class HalfPrecisionEncoder(nn.Module):
    """An encoder whose weights and activations are bfloat16; what it gives is float32."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        if not isinstance(encoder, nn.Module):
            raise TypeError("an encoder is a module")
        self.embedding_width = encoder.embedding_width
        self.spatial_width = encoder.spatial_width
        self.spatial_stride_px = encoder.spatial_stride_px
        self.encoder = encoder.to(torch.bfloat16)

    def forward(self, images: Tensor) -> Features:
        """Encode float32 images; see ``Encoder`` for shapes."""
        features = self.encoder(images.to(torch.bfloat16))
        return Features(features.embedding.float(), features.spatial.float())


def compile_forward(network: Module, device: torch.device) -> Module:
    """Compile a network for fixed shapes; the first batch of each size takes long.

    On a CPU this needs a C++ compiler, when the first batch comes.
    """
    mode = "reduce-overhead" if device.type == "cuda" else "default"  # the former: CUDA graphs
    compiled = torch.compile(network, mode=mode, dynamic=False, fullgraph=True)
    if not isinstance(compiled, nn.Module):
        raise TypeError("a compiled network is a module")
    return compiled  # pyright: ignore[reportReturnType] - it calls and returns as the network does


def fixed_batch(count: int) -> int:
    """Give the compiled batch size that ``count`` images are filled up to."""
    return next((size for size in BATCH_SIZES if size >= count), BATCH_SIZES[-1])


def fill_up(images: Tensor, size: int) -> Tensor:
    """Repeat the last image until a batch (B, C, S, S) has ``size``; what it gives is cut off."""
    missing = size - len(images)
    if missing <= 0:
        return images
    return torch.cat([images, images[-1:].expand(missing, -1, -1, -1)])
