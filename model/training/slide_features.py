"""Encode the tiles of labelled slides once; the INSIGHT head is then trained on the features.

Letters of shapes: N tiles of one slide, C, h and w as in ``model.encoders.encoder``.
"""

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from common.errors import FirstreadError, TrainingDataError
from model.bundles import Bundle
from model.encoders.encoder import Encoder
from model.slide.tiles import plan_tiles, read_tiles
from model.slide.tiling import SlideTiling, TileGrid
from model.slide.whole_slide import open_slide
from model.training.manifests import Manifest, ManifestRow

COLOUR_KINDS = ("medimageinsight", "dinov2", "uni")


class SlideBag(NamedTuple):
    """The features of one slide.

    Shapes:
        spatial: float16 (N, C, h, w)
        positions: int (N, 2), row and column in the grid of tiles
    """

    spatial: Tensor
    positions: Tensor


def tiling_for(bundle: Bundle, mpp_um: float, tile_px: int) -> SlideTiling:
    """Choose how slides are cut for an encoder: its bundle's own way, if it has one.

    Encoders that were pretrained on colour see colour in [0, 1]; the others see grey.
    """
    if bundle.slide_tiling is not None:
        return bundle.slide_tiling
    if bundle.encoder.get("kind") in COLOUR_KINDS:
        return SlideTiling(mpp_um=mpp_um, tile_px=tile_px)
    spec = bundle.preprocessing
    return SlideTiling(mpp_um=mpp_um, tile_px=tile_px, colour="grey", mean=spec.mean, std=spec.std)


def encode_slides(
    manifest: Manifest,
    encoder: Encoder,
    tiling: SlideTiling,
    folder: Path,
    *,
    stamp: str,
    most_tiles: int,
    device: torch.device,
    batch: int = 32,
) -> list[Path]:
    """Encode every slide of a manifest into a file of its own; one that is there is kept.

    Args:
        manifest: ``file`` is a slide's folder, or its one file.
        stamp: of encoder and tiling: files with another are made anew.
        most_tiles: of a slide with more, this many are drawn at random, the same each time.

    Raises:
        TrainingDataError: a slide cannot be used; the message names it and says why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, row in enumerate(manifest.rows):
        path = folder / f"{number:05d}.safetensors"
        name = f"{row.path} {stamp} {most_tiles} {_instances(row)}"
        mark = hashlib.sha256(name.encode()).hexdigest()
        written.append(path)
        if path.exists() and _mark_of(path) == mark:
            continue
        try:
            bag = _encode(row, encoder, tiling, most_tiles, device, batch)
        except (FirstreadError, OSError) as error:
            raise TrainingDataError(f"{row.path}: {error}") from error
        partial = path.with_suffix(f".{os.getpid()}.partial")
        save_file(bag._asdict(), partial, metadata={"mark": mark, "file": str(row.path)})
        partial.replace(path)
        print(f"slide {number + 1} of {len(manifest.rows)}", file=sys.stderr)  # noqa: T201
    return written


def read_bag(path: Path) -> SlideBag:
    """Read the features of one slide."""
    return SlideBag(**load_file(path))


def describe_stamp(bundle: Bundle, tiling: SlideTiling) -> str:
    """Name an encoder and a tiling by one hash."""
    text = bundle.sha256 + json.dumps(tiling.model_dump(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _encode(
    row: ManifestRow,
    encoder: Encoder,
    tiling: SlideTiling,
    most_tiles: int,
    device: torch.device,
    batch: int,
) -> SlideBag:
    spatial: list[Tensor] = []
    positions: list[tuple[int, int]] = []
    with open_slide(_instances(row)) as slide, torch.inference_mode():
        plan = plan_tiles(slide, tiling)
        plan = plan._replace(grid=_thin_out(plan.grid, most_tiles))
        for tiles in read_tiles(slide, plan, tiling, batch):
            features = encoder(torch.from_numpy(tiles.pixels).to(device))
            spatial.append(features.spatial.half().cpu())
            positions.extend(tiles.positions)
    return SlideBag(torch.cat(spatial).contiguous(), torch.tensor(positions))


def _thin_out(grid: TileGrid, most: int) -> TileGrid:
    """Keep at most this many tiles, drawn at random with a fixed seed."""
    if grid.tiles <= most:
        return grid
    places = np.flatnonzero(grid.kept)
    kept = np.zeros_like(grid.kept)
    kept.flat[np.random.default_rng(0).choice(places, most, replace=False)] = True
    return TileGrid(kept)


def _instances(row: ManifestRow) -> Sequence[Path]:
    if row.path.is_dir():
        return sorted(path for path in row.path.iterdir() if path.is_file())
    return [row.path]


def _mark_of(path: Path) -> str | None:
    with safe_open(path, "pt") as file:
        return (file.metadata() or {}).get("mark")
