"""What lies in a file of weights, and what is wrong with one that cannot be used. No torch."""

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from common.errors import CheckpointError

FLOAT_TYPES = frozenset(("F64", "F32", "F16", "BF16"))
_LONGEST_HEADER_BYTES = 100_000_000  # the format's own bound


class StoredTensor(NamedTuple):
    """A tensor as the header of a safetensors file describes it."""

    dtype: str
    shape: tuple[int, ...]


def is_pickle(path: Path) -> bool:
    """Say whether a file begins as ``torch.save`` writes: a zip archive or a bare pickle."""
    with path.open("rb") as file:
        start = file.read(4)
    return start == b"PK\x03\x04" or start[:1] == b"\x80"


def read_safetensors_header(path: Path) -> dict[str, StoredTensor]:
    """List the tensors of a safetensors file; its name may end in anything, also in ``.pt``.

    Raises:
        CheckpointError: a pickle, not safetensors, or cut off. One line says which.
        OSError: the file cannot be opened or read.
    """
    size = path.stat().st_size
    if is_pickle(path):
        raise CheckpointError(
            f"{path} is a pickle (written by torch.save), which can run code and is not read; "
            "name the safetensors file: the official one is called .pt but is safetensors"
        )
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= _LONGEST_HEADER_BYTES:
            raise CheckpointError(f"{path} is no safetensors file; download it again")
        content = file.read(length)
    if len(content) < length:
        raise CheckpointError(f"{path} ends within its header: cut off; download it again")
    try:
        header = json.loads(content)
        header.pop("__metadata__", None)
        tensors = {
            name: StoredTensor(entry["dtype"], tuple(entry["shape"]))
            for name, entry in header.items()
        }
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(f"{path} is no safetensors file; download it again") from error
    expected = 8 + length + end
    if size != expected:
        problem = "cut off" if size < expected else "followed by something else"
        raise CheckpointError(
            f"{path} has {size:,} bytes and its header tells of {expected:,}: {problem}; "
            "download it again"
        )
    return tensors


def check_tensors(
    path: Path, found: Mapping[str, StoredTensor], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Compare what a file holds with what an encoder needs, name by name, shape by shape.

    Raises:
        CheckpointError: something is missing, left over, of another shape, or no float.
    """
    missing = [name for name in expected if name not in found]
    left_over = [name for name in found if name not in expected]
    if missing:
        raise CheckpointError(
            f"{path} lacks {len(missing)} of {len(expected)} tensors: {_some(missing)}"
            + (f"; it has {_some(left_over)} instead" if left_over else "")
        )
    if left_over:
        raise CheckpointError(
            f"{path} has {len(left_over)} tensors that the encoder does not know: "
            f"{_some(left_over)}"
        )
    misshapen = [
        f"{name} is {list(found[name].shape)}, not {list(shape)}"
        for name, shape in expected.items()
        if found[name].shape != shape
    ]
    if misshapen:
        raise CheckpointError(f"{path} is of another size: {_some(misshapen)}")
    no_floats = [name for name, tensor in found.items() if tensor.dtype not in FLOAT_TYPES]
    if no_floats:
        raise CheckpointError(f"{path} has tensors that are no floats: {_some(no_floats)}")


def file_sha256(path: Path) -> str:
    """Hash a file of any size, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _some(names: Iterable[str], count: int = 3) -> str:
    listed = list(names)
    rest = len(listed) - count
    return ", ".join(listed[:count]) + (f" and {rest} more" if rest > 0 else "")
