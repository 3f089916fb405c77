"""What a bundle says of the images of a manifest."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from common.errors import BundleError
from model.bundles import HEAD_PREFIX, Bundle, tensor_names
from model.evaluation.prediction_table import PredictionTable
from model.network import TriageNetwork
from model.pipelines import choose_device
from model.training.feature_encoding import load_network, read_input
from model.training.manifests import ManifestRow

BATCH_SIZE = 32


def predict_rows(
    rows: Sequence[ManifestRow],
    bundle: Bundle,
    device: str = "auto",
    say: Callable[[str], None] = lambda _: None,
) -> PredictionTable:
    """Score the images of some rows; probabilities where the bundle has a calibrator.

    Raises:
        BundleError: the bundle has no triage head yet.
        TrainingDataError: an image cannot be read.
    """
    if not any(name.startswith(HEAD_PREFIX) for name in tensor_names(bundle.weights)):
        raise BundleError(
            f"{bundle.folder}: an encoder without a head has no score; give it one with "
            "`firstread train insight` or `finetune`"
        )
    chosen = choose_device(device)
    network = load_network(bundle, chosen, has_head=True)
    if not isinstance(network, TriageNetwork):
        raise TypeError("a bundle with a head is a triage network")
    scores: list[float] = []
    with torch.inference_mode():
        for start in range(0, len(rows), BATCH_SIZE):
            part = rows[start : start + BATCH_SIZE]
            images = np.stack([read_input(row.path, bundle.preprocessing) for row in part])
            batch = torch.from_numpy(images if images.ndim == 4 else images[:, None]).to(chosen)
            scores.extend(network(batch).score.double().cpu().tolist())
            say(f"{len(scores)} of {len(rows)} images")
    calibrator = bundle.calibrator
    probabilities = (
        None if calibrator is None else np.array([calibrator.calibrate(one) for one in scores])
    )
    name = f"{bundle.name}-{bundle.version}"
    table = table_of(rows, np.array(scores), probabilities, name=name, sha256=bundle.sha256)
    silent = np.array([bundle.abstains(one) for one in scores])
    return replace(
        table, bundle_sha256=bundle.sha256, abstained=silent if bundle.may_abstain else None
    )


def table_of(
    rows: Sequence[ManifestRow],
    scores: NDArray[np.float64],
    probabilities: NDArray[np.float64] | None = None,
    *,
    name: str = "",
    sha256: str = "",
) -> PredictionTable:
    """Put scores (N,) beside the rows that they belong to; every file absolute."""
    columns = list(dict.fromkeys(column for row in rows for column in row.columns))
    return PredictionTable(
        name=name,
        files=tuple(str(Path(row.path).absolute()) for row in rows),
        labels=np.array([row.label for row in rows], dtype=bool),
        groups=np.array([row.group for row in rows]),
        splits=np.array([row.split for row in rows]),
        scores=scores,
        probabilities=probabilities,
        columns={
            column: np.array([row.columns.get(column, "") for row in rows]) for column in columns
        },
        sha256=sha256,
    )
