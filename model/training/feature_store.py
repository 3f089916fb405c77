"""Features of a manifest's images, encoded once and read by every job that trains on them.

A store is a folder of shards, so that neither writing nor reading holds more than one in memory:

``rows.csv``                    the manifest, every file absolute
``store.json``                  what was encoded by what, and the SHA-256 of each array
``embeddings-00000.npy``        float32 (n, D)
``spatial-00000.npy``           float16 (n, C, h, w), memory-mapped; left out if nobody needs it
``heads-00000.npy``             float64 (n, 2): the bundle's own score and INSIGHT's probability,
                                where the bundle has a head

Letters of shapes: N rows of the store, n of one shard; D, C, h, w as in ``model.encoders.encoder``.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from common.errors import TrainingDataError
from model.training.manifests import ManifestRow, read_manifest

INDEX, ROWS = "store.json", "rows.csv"
EMBEDDINGS, SPATIAL, HEADS = "embeddings", "spatial", "heads"


class EncodingPlan(BaseModel):
    """What fixes the bytes of a store. Every start of a job must come with the same plan."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: str
    bundle_sha256: str
    manifest_fingerprint: str
    rows: int
    batch_size: int
    shard_rows: int
    arrays: tuple[str, ...]

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return -(-self.rows // self.shard_rows)

    def rows_of(self, shard: int) -> range:
        """Number the rows of a shard."""
        start = shard * self.shard_rows
        return range(start, min(start + self.shard_rows, self.rows))


class Shard(BaseModel):
    """One shard: hashes of its arrays, by name, and of the image files that it was made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    rows: int
    sha256: dict[str, str]
    images_sha256: str


class StoreIndex(BaseModel):
    """``store.json``: the plan, what the manifest copy must hash to, and every shard."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan: EncodingPlan
    rows_sha256: str
    shards: tuple[Shard, ...]


@dataclass(frozen=True)
class FeatureStore:
    """A finished store; its arrays are read when they are asked for."""

    folder: Path
    rows: tuple[ManifestRow, ...]
    index: StoreIndex

    @classmethod
    def open(cls, folder: Path, *, verify: bool = True) -> "FeatureStore":
        """Open a store; ``verify`` reads every byte once and compares it with its checksum.

        Raises:
            TrainingDataError: there is none, it is not finished, or a file was changed.
        """
        try:
            index = StoreIndex.model_validate_json((folder / INDEX).read_bytes())
        except FileNotFoundError as error:
            raise TrainingDataError(
                f"{folder}: no {INDEX}, so no finished features; make them with, or resume, "
                f"`firstread train features MANIFEST --bundle BUNDLE --out {folder}`"
            ) from error
        except ValidationError as error:
            raise TrainingDataError(f"{folder / INDEX} cannot be understood") from error
        _compare(folder / ROWS, index.rows_sha256)
        rows = read_manifest(folder / ROWS).rows
        if verify:
            for shard in index.shards:
                for name, sha256 in shard.sha256.items():
                    _compare(array_path(folder, name, shard.number), sha256)
        return cls(folder, rows, index)

    @property
    def bundle_sha256(self) -> str:
        """Hash of the bundle that encoded."""
        return self.index.plan.bundle_sha256

    @property
    def manifest_fingerprint(self) -> str:
        """Fingerprint of the manifest that was encoded."""
        return self.index.plan.manifest_fingerprint

    @cached_property
    def embeddings(self) -> NDArray[np.float32]:
        """All embeddings, float32 (N, D), in memory."""
        return np.concatenate([self._array(EMBEDDINGS, shard.number) for shard in self._shards])

    @property
    def has_heads(self) -> bool:
        """Whether the bundle that encoded has a head of its own."""
        return HEADS in self.index.plan.arrays

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """The bundle's own raw scores, float64 (N,)."""
        return self._heads[:, 0]

    @cached_property
    def insight_probabilities(self) -> NDArray[np.float64]:
        """INSIGHT's own probabilities, float64 (N,), not calibrated."""
        return self._heads[:, 1]

    @cached_property
    def spatial_shape(self) -> tuple[int, int, int]:
        """Give (C, h, w)."""
        channels, height, width = self._spatial[0].shape[1:]
        return channels, height, width

    def spatial(self, rows: Sequence[int]) -> NDArray[np.float16]:
        """Read the spatial maps of some rows, in their order: float16 (n, C, h, w).

        Raises:
            TrainingDataError: the store was made without them.
        """
        numbers = np.asarray(rows, dtype=np.intp)
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(self.rows):
            raise IndexError(f"the store has {len(self.rows)} rows")
        maps = np.empty((len(numbers), *self.spatial_shape), dtype=np.float16)
        shard_of, place_in = np.divmod(numbers, self.index.plan.shard_rows)
        for shard in np.unique(shard_of):
            here = np.flatnonzero(shard_of == shard)
            maps[here] = self._spatial[shard][place_in[here]]
        return maps

    def rows_of(self, *splits: str) -> NDArray[np.intp]:
        """Number the rows of some splits."""
        return np.flatnonzero([row.split in splits for row in self.rows])

    @property
    def labels(self) -> NDArray[np.bool_]:
        """The labels of all rows, bool (N,); True is abnormal."""
        return np.array([row.label for row in self.rows], dtype=bool)

    @property
    def groups(self) -> NDArray[np.str_]:
        """The groups of all rows, (N,): never to be parted."""
        return np.array([row.group for row in self.rows])

    @property
    def _shards(self) -> tuple[Shard, ...]:
        return self.index.shards

    @cached_property
    def _heads(self) -> NDArray[np.float64]:
        return np.concatenate([self._array(HEADS, shard.number) for shard in self._shards])

    @cached_property
    def _spatial(self) -> list[NDArray[np.float16]]:
        return [self._array(SPATIAL, shard.number, mapped=True) for shard in self._shards]

    def _array(self, name: str, shard: int, *, mapped: bool = False) -> NDArray[Any]:
        if name not in self.index.plan.arrays:
            raise TrainingDataError(
                f"{self.folder}: made without {name}; make another store with "
                f"`firstread train features`"
            )
        path = array_path(self.folder, name, shard)
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)


def array_path(folder: Path, name: str, shard: int) -> Path:
    """Say where an array of a shard lies."""
    return folder / f"{name}-{shard:05d}.npy"


def file_sha256(path: Path) -> str:
    """Hash a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Write a small file in one step: it is there whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def as_json(model: BaseModel) -> bytes:
    """Lay a model out as JSON, the same bytes each time."""
    return (json.dumps(model.model_dump(mode="json"), indent=2) + "\n").encode()


def _compare(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise TrainingDataError(f"{path} is missing; run `firstread train features` again")
    if file_sha256(path) != sha256:
        raise TrainingDataError(
            f"{path} was changed since it was written; delete it and {INDEX} beside it, and run "
            "`firstread train features` again"
        )
