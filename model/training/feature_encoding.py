"""Encode the images of a manifest into a feature store, shard by shard.

Each shard is written whole, its description last: a job that was stopped goes on with the first
shard that is not there, to the same bytes. Several processes share the work by striding over the
shards; who finds all of them done writes the index, so none waits for another.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from common.errors import BundleError, ImageError, SenderError, TrainingDataError
from common.pixels.image_files import is_image_file, read_image_file
from common.pixels.reading import read_pixels
from model.bundles import HEAD_PREFIX, Bundle, tensor_names
from model.encoders.building import build_encoder
from model.network import TriageNetwork, build_network
from model.pipelines import choose_device
from model.preprocessing import PreprocessingSpec, prepare
from model.training.feature_store import (
    EMBEDDINGS,
    HEADS,
    INDEX,
    ROWS,
    SPATIAL,
    EncodingPlan,
    FeatureStore,
    Shard,
    StoreIndex,
    array_path,
    as_json,
    file_sha256,
    write_whole,
)
from model.training.manifests import Manifest, ManifestRow, write_manifest
from model.training.run_record import write_run_record

PLAN = "plan.json"
ENCODER_PREFIX = "encoder."
BATCH_SIZE = 32
SHARD_ROWS = 256
READERS = 4

Say = Callable[[str], None]


class EncodingConfig(BaseModel):
    """What the run record keeps of a job."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan: EncodingPlan
    manifest: str
    device: str
    processes: int


def encode_manifest(
    manifest: Manifest,
    bundle: Bundle,
    folder: Path,
    device: str = "auto",
    *,
    spatial: bool = True,
    batch_size: int = BATCH_SIZE,
    shard_rows: int = SHARD_ROWS,
    rank: int = 0,
    processes: int = 1,
    say: Say = lambda _: None,
) -> FeatureStore | None:
    """Encode what is not encoded yet; give the store, or None while other processes still work.

    Args:
        manifest: Its images, in its order.
        bundle: Preprocessing and encoder; also its scores, where it has a head.
        folder: Made if it is not there.
        device: "auto" or torch's name of one.
        spatial: Whether to keep the spatial maps; they are nearly all of a store's bytes.
        batch_size: Images a forward pass; part of what fixes the bytes.
        shard_rows: Images a shard; a shard is what is in memory at a time.
        rank: Which of the ``processes`` this one is.
        processes: How many share the work.
        say: Told of progress, a line at a time.

    Raises:
        TrainingDataError: an image cannot be read, or the folder holds other features.
        BundleError: the weights do not fit the encoder that the bundle names.
    """
    names = tensor_names(bundle.weights)
    has_head = any(name.startswith(HEAD_PREFIX) for name in names)
    plan = EncodingPlan(
        bundle=f"{bundle.name}-{bundle.version}",
        bundle_sha256=bundle.sha256,
        manifest_fingerprint=manifest.fingerprint,
        rows=len(manifest.rows),
        batch_size=batch_size,
        shard_rows=shard_rows,
        arrays=(EMBEDDINGS, *([SPATIAL] if spatial else []), *([HEADS] if has_head else [])),
    )
    _settle_plan(folder, plan)
    if (folder / INDEX).exists():
        return FeatureStore.open(folder)
    chosen = choose_device(device)
    if rank == 0:
        config = EncodingConfig(
            plan=plan, manifest=str(manifest.path), device=str(chosen), processes=processes
        )
        write_run_record(folder, config, {"manifest_sha256": manifest.fingerprint})
    network = load_network(bundle, chosen, has_head=has_head)
    for number in range(rank, plan.shards, processes):
        if _read_shard(folder, plan, number, verify=True) is None:
            rows = [manifest.rows[row] for row in plan.rows_of(number)]
            arrays, images_sha256 = _encode(network, rows, bundle.preprocessing, plan, chosen)
            _write_shard(folder, number, arrays, images_sha256)
        done = plan.rows_of(number).stop
        say(f"shard {number + 1} of {plan.shards}: {done} of {plan.rows} images")
    return _finish(folder, manifest, plan)


def load_network(bundle: Bundle, device: torch.device, *, has_head: bool) -> nn.Module:
    """Load a bundle's whole network, or its encoder alone where it has no head yet.

    Raises:
        BundleError: the weights do not fit.
    """
    try:
        weights = {name: tensor.float() for name, tensor in load_file(bundle.weights).items()}
        if has_head:
            network: nn.Module = build_network(bundle.encoder)
        else:
            encoder = build_encoder(bundle.encoder)
            if not isinstance(encoder, nn.Module):
                raise TypeError("an encoder is a module")
            network = encoder
            weights = {name.removeprefix(ENCODER_PREFIX): one for name, one in weights.items()}
        network.load_state_dict(weights)
    except (ValueError, RuntimeError, SafetensorError) as error:
        raise BundleError(f"{bundle.folder}: the weights cannot be loaded: {error}") from error
    return network.to(device).eval()


def read_input(path: Path, spec: PreprocessingSpec) -> NDArray[np.float32]:
    """Read and prepare one image of a manifest: DICOM, PNG or JPEG.

    Raises:
        TrainingDataError: it is missing or cannot be read; the message names it.
    """
    try:
        read = read_image_file if is_image_file(path) else read_pixels
        return prepare(read(path), spec).pixels
    except (ImageError, SenderError, OSError) as error:
        raise TrainingDataError(
            f"{path} cannot be read: {error}; mend it or take its row out of the manifest"
        ) from error


def _encode(
    network: nn.Module,
    rows: list[ManifestRow],
    spec: PreprocessingSpec,
    plan: EncodingPlan,
    device: torch.device,
) -> tuple[dict[str, NDArray[Any]], str]:
    """Encode one shard; a thread pool reads the next batch while this one is encoded."""
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in plan.arrays}
    for images in _batches(rows, spec, plan.batch_size):
        with torch.inference_mode():
            batch = torch.from_numpy(images if images.ndim == 4 else images[:, None]).to(device)
            read = network.encoder if isinstance(network, TriageNetwork) else network
            features = read(batch)
            parts[EMBEDDINGS].append(features.embedding.float().cpu().numpy())
            if SPATIAL in parts:
                parts[SPATIAL].append(features.spatial.half().cpu().numpy())
            if isinstance(network, TriageNetwork):
                output = network.read(features)
                heads = torch.stack([output.score, output.insight.probability[:, 0]], dim=1)
                parts[HEADS].append(heads.double().cpu().numpy())
    arrays = {name: np.concatenate(part) for name, part in parts.items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise TrainingDataError(f"{rows[0].path} and following: {name} are not all finite")
    digest = hashlib.sha256()
    for row in rows:
        digest.update(bytes.fromhex(file_sha256(row.path)))
    return arrays, digest.hexdigest()


def _batches(
    rows: list[ManifestRow], spec: PreprocessingSpec, size: int
) -> Iterator[NDArray[np.float32]]:
    with ThreadPoolExecutor(READERS) as pool:
        reading = pool.map(lambda row: read_input(row.path, spec), rows)
        images: list[NDArray[np.float32]] = []
        for image in reading:
            images.append(image)
            if len(images) == size:
                yield np.stack(images)
                images = []
        if images:
            yield np.stack(images)


def _write_shard(
    folder: Path, number: int, arrays: dict[str, NDArray[Any]], images_sha256: str
) -> None:
    hashes: dict[str, str] = {}
    for name, array in arrays.items():
        path = array_path(folder, name, number)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        with partial.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        hashes[name] = file_sha256(partial)
        partial.replace(path)
    rows = len(arrays[EMBEDDINGS])
    shard = Shard(number=number, rows=rows, sha256=hashes, images_sha256=images_sha256)
    write_whole(_shard_path(folder, number), as_json(shard))


def _read_shard(folder: Path, plan: EncodingPlan, number: int, *, verify: bool) -> Shard | None:
    """Give a shard that is there whole; None if it must be encoded."""
    try:
        shard = Shard.model_validate_json(_shard_path(folder, number).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    paths = {name: array_path(folder, name, number) for name in plan.arrays}
    if shard.rows != len(plan.rows_of(number)) or set(shard.sha256) != set(paths):
        return None
    if not all(path.is_file() for path in paths.values()):
        return None
    if verify and any(file_sha256(path) != shard.sha256[name] for name, path in paths.items()):
        return None
    return shard


def _finish(folder: Path, manifest: Manifest, plan: EncodingPlan) -> FeatureStore | None:
    """Write the index once every shard is there; a second process writes the same bytes."""
    shards = [_read_shard(folder, plan, number, verify=False) for number in range(plan.shards)]
    found = tuple(shard for shard in shards if shard is not None)
    if len(found) < plan.shards:
        return None
    absolute = [
        ManifestRow(row.path.absolute(), row.label, row.group, row.split, row.columns)
        for row in manifest.rows
    ]
    rows = write_manifest(folder / ROWS, absolute)
    index = StoreIndex(plan=plan, rows_sha256=rows.fingerprint, shards=found)
    write_whole(folder / INDEX, as_json(index))
    return FeatureStore.open(folder, verify=False)


def _settle_plan(folder: Path, plan: EncodingPlan) -> None:
    """Write down what fixes the bytes, or refuse a folder that was begun with something else."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PLAN
    if not path.exists():
        write_whole(path, as_json(plan))
    elif path.read_bytes() != as_json(plan):
        raise TrainingDataError(
            f"{folder} holds features of another manifest or bundle, or of other batches "
            f"(see {PLAN}); name another folder"
        )


def _shard_path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.json"
