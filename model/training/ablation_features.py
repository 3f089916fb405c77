"""Encode radiographs stage by stage, and read the maps that a bundle's own heads make of them.

Letters of shapes: N images, C and C' widths of two stages, h and w rows and columns.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.errors import BundleError
from model.additive_map import triage_map
from model.bundles import HEAD_PREFIX, Bundle, tensor_names
from model.encoders.feature_pyramid import FeaturePyramid
from model.network import TriageNetwork
from model.pipelines import choose_device
from model.training.feature_encoding import load_network, read_input

BATCH = 16
DIGEST = "encoded.sha256"
CACHED = ("spatial", "other", "triage_score")

Say = Callable[[str], None]


@dataclass(frozen=True)
class StageFeatures:
    """What an encoder and the heads of its bundle see in N images.

    Shapes:
        spatial: float16 (N, C, h, w), the map that INSIGHT reads
        other: float16 (N, C', h', w'), the other of the last two stages
        insight: float32 (N, h, w), the bundle's own heatmap
        additive: float32 (N, h'', w''), the exact map of the triage head, in logits
        triage_score: float64 (N,), what the additive map adds up to
        additive_error: the greatest distance between the two, over all images
    """

    spatial: NDArray[np.float16]
    other: NDArray[np.float16]
    insight: NDArray[np.float32]
    additive: NDArray[np.float32]
    triage_score: NDArray[np.float64]
    additive_error: float


def load_triage_network(bundle: Bundle, device: torch.device) -> TriageNetwork:
    """Load a bundle that has a triage head and INSIGHT.

    Raises:
        BundleError: it has none, or its weights do not fit.
    """
    has_head = any(name.startswith(HEAD_PREFIX) for name in tensor_names(bundle.weights))
    network = load_network(bundle, device, has_head=has_head)
    if not isinstance(network, TriageNetwork):
        raise BundleError(
            f"{bundle.folder}: no triage head yet, so nothing to localise with; fit one with "
            "`firstread train insight` or `firstread train finetune`"
        )
    return network


def encode_stages(
    bundle: Bundle, paths: Sequence[Path], device: str, say: Say = lambda _: None
) -> StageFeatures:
    """Encode images in their order.

    Raises:
        BundleError: the bundle has no heads, or an encoder without stages.
        TrainingDataError: an image cannot be read.
    """
    chosen = choose_device(device)
    network = load_triage_network(bundle, chosen)
    try:
        pyramid = FeaturePyramid(network.encoder)
    except TypeError as error:
        raise BundleError(f"{bundle.folder}: {error}; the additive map needs stages") from error
    parts: list[tuple[Tensor, ...]] = []
    for start in range(0, len(paths), BATCH):
        images = np.stack(
            [read_input(path, bundle.preprocessing) for path in paths[start : start + BATCH]]
        )
        with torch.inference_mode():
            batch = torch.from_numpy(images if images.ndim == 4 else images[:, None]).to(chosen)
            seen = pyramid(batch)
            explained = triage_map(network.triage, seen.coarse, pyramid.norm)
            spatial = seen.features.spatial
            other = seen.coarse if spatial.shape == seen.fine.shape else seen.fine
            parts.append(
                (
                    spatial.half(),
                    other.half(),
                    network.insight(spatial).heatmap[:, 0].float(),
                    explained.cells.float(),
                    network.triage(seen.features.embedding)[:, 0].double(),
                    explained.score().double(),
                )
            )
        if start % (20 * BATCH) == 0:
            say(f"encoded {min(start + BATCH, len(paths))} of {len(paths)} images")
    columns = [torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)]
    error = float(np.abs(columns[4] - columns[5]).max())
    return StageFeatures(*columns[:5], additive_error=error)


@dataclass(frozen=True)
class CachedStages:
    """What is kept of many images: both maps, memory-mapped, and the triage head's scores."""

    spatial: NDArray[np.float16]
    other: NDArray[np.float16]
    triage_score: NDArray[np.float64]


def cache_stages(
    bundle: Bundle, paths: Sequence[Path], folder: Path, device: str, say: Say
) -> CachedStages:
    """Encode both stages of many images; a second call with the same bundle and images reads them.

    Both maps of all images are in memory once, before they are written.
    """
    named = "\n".join([bundle.sha256, *(str(path) for path in paths)])
    wanted, digest = hashlib.sha256(named.encode()).hexdigest(), folder / DIGEST
    if not (digest.is_file() and digest.read_text() == wanted):
        features = encode_stages(bundle, paths, device, say)
        folder.mkdir(parents=True, exist_ok=True)
        for name in CACHED:
            np.save(folder / f"{name}.npy", getattr(features, name), allow_pickle=False)
        digest.write_text(wanted)
    arrays = [np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in CACHED]
    return CachedStages(*arrays)
