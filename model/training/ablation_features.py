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
from model.bundles import HEAD_PREFIX, Bundle, tensor_names
from model.feature_pyramid import FeaturePyramid, triage_map
from model.network import TriageNetwork
from model.pipelines import choose_device
from model.training.feature_encoding import load_network, read_input

BATCH = 16
OTHER, OTHER_DIGEST = "other_stage.npy", "other_stage.sha256"

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
            "`firstread train transfer` or `firstread train finetune`"
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
    linear = network.triage
    parts: list[tuple[Tensor, ...]] = []
    for start in range(0, len(paths), BATCH):
        images = np.stack(
            [read_input(path, bundle.preprocessing) for path in paths[start : start + BATCH]]
        )
        with torch.inference_mode():
            batch = torch.from_numpy(images if images.ndim == 4 else images[:, None]).to(chosen)
            seen = pyramid(batch)
            explained = triage_map(network, pyramid, seen.coarse)
            spatial = seen.features.spatial
            other = seen.coarse if spatial.shape == seen.fine.shape else seen.fine
            parts.append(
                (
                    spatial.half(),
                    other.half(),
                    network.insight(spatial).heatmap[:, 0].float(),
                    explained.cells.float(),
                    linear(seen.features.embedding)[:, 0].double(),
                    explained.score().double(),
                )
            )
        if start % (20 * BATCH) == 0:
            say(f"encoded {min(start + BATCH, len(paths))} of {len(paths)} images")
    columns = [torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)]
    error = float(np.abs(columns[4] - columns[5]).max())
    return StageFeatures(*columns[:5], additive_error=error)


def cache_other_stage(
    bundle: Bundle, paths: Sequence[Path], folder: Path, device: str, say: Say
) -> tuple[NDArray[np.float16], NDArray[np.float64]]:
    """Give the other stage's maps (N, C', h', w') and triage scores (N,) of many images.

    Kept in ``folder``: a second call with the same bundle and images reads them.
    """
    wanted = hashlib.sha256(
        "\n".join([bundle.sha256, *(str(path) for path in paths)]).encode()
    ).hexdigest()
    kept, scores, digest = folder / OTHER, folder / "triage_scores.npy", folder / OTHER_DIGEST
    if not (digest.is_file() and digest.read_text() == wanted):
        say("encoding the encoder's other stage, for the multi-scale arm")
        features = encode_stages(bundle, paths, device, say)
        folder.mkdir(parents=True, exist_ok=True)
        np.save(kept, features.other, allow_pickle=False)
        np.save(scores, features.triage_score, allow_pickle=False)
        digest.write_text(wanted)
    return np.load(kept, mmap_mode="r", allow_pickle=False), np.load(scores, allow_pickle=False)
