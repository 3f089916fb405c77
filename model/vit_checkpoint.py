"""Checkpoints of vision transformers: timm's names, or DINOv2's own."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from common.errors import CheckpointError
from model.checkpoint_files import StoredTensor, check_tensors, is_pickle, read_safetensors_header

_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
}


def open_vit_checkpoint(path: Path, expected: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Read and check the tensors of a vision transformer, under timm's names.

    These encoders are published as pickles too. Those are read by torch's restricted loader, which
    builds tensors and nothing else; what is written is safetensors.

    Raises:
        CheckpointError: no tensors, cut off, or not those of the encoder. One line says which.
    """
    if is_pickle(path):
        tensors = _read_pickle(path)
    else:
        read_safetensors_header(path)
        tensors = load_file(path)
    if "register_tokens" in tensors:
        tensors = _from_dinov2(path, tensors)
    found = {
        name: StoredTensor(_TYPES.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape))
        for name, tensor in tensors.items()
    }
    check_tensors(path, found, expected)
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch names no class for a file that it refuses
        first = str(error).strip().split("\n")[0]
        raise CheckpointError(
            f"{path} is a pickle that holds more than tensors, or is cut off: {first}"
        ) from error
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise CheckpointError(f"{path} is a pickle, but not of tensors by name")
    return loaded


def _from_dinov2(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of Meta's own file to timm's; the class token takes its position in.

    Source: the two packages' forward passes: DINOv2 adds positions to class token and patches,
    then inserts the registers; timm adds them to the patches alone.
    """
    renamed = dict(tensors)
    try:
        renamed["reg_token"] = renamed.pop("register_tokens")
        renamed["cls_token"] = renamed["cls_token"] + renamed["pos_embed"][:, :1]
        renamed["pos_embed"] = renamed["pos_embed"][:, 1:]
    except (KeyError, IndexError, RuntimeError) as error:
        raise CheckpointError(f"{path} lacks the class token or positions of DINOv2") from error
    renamed.pop("mask_token", None)  # only used while it was trained
    return renamed
