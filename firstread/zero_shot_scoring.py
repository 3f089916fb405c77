"""Score image files against labels, one line or one JSON object per image."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from common.errors import ImageError, SenderError
from common.pixels.image_files import is_image_file, read_image_file
from common.pixels.reading import read_pixels
from firstread.naming_bundles import named_bundle
from model.execution import choose_device
from model.preprocessing import PreprocessingSpec, prepare
from model.zero_shot import ZeroShot, score_labels

NOTICE = "Shares compare these labels only. They are not calibrated. Not for clinical use."


def score_files(
    reference: str,
    paths: Sequence[Path],
    labels: Sequence[str],
    templates: Sequence[str],
    device: str,
    *,
    as_json: bool,
) -> int:
    """Print the labels' shares of each file; 1 if a file could not be read.

    Raises:
        BundleError: the bundle has no text encoder.
        ConfigurationError: a template has no place for the label, or there is no such device.
    """
    bundle = named_bundle(reference)
    zero_shot = ZeroShot(bundle, choose_device(device))
    of_labels = zero_shot.embed_labels(labels, templates)
    sys.stderr.write(f"{NOTICE}\n")
    status = 0
    for path in paths:
        try:
            image = torch.from_numpy(_read(path, bundle.preprocessing))
        except (ImageError, SenderError, OSError) as error:
            sys.stderr.write(f"{path}: {error}\n")
            status = 1
            continue
        embedding = zero_shot.embed_images(image[None] if image.ndim == 3 else image[None, None])
        cosines, shares = score_labels(embedding, of_labels, zero_shot.scale)
        rows = list(zip(labels, shares[0].tolist(), cosines[0].tolist(), strict=True))
        sys.stdout.writelines(_json(path, rows) if as_json else _lines(path, rows))
        sys.stdout.flush()
    return status


def _read(path: Path, spec: PreprocessingSpec) -> NDArray[np.float32]:
    read = read_image_file if is_image_file(path) else read_pixels
    return prepare(read(path), spec).pixels


def _json(path: Path, rows: list[tuple[str, float, float]]) -> Iterator[str]:
    labels = [
        {"label": label, "share": round(share, 6), "cosine": round(cosine, 6)}
        for label, share, cosine in rows
    ]
    yield json.dumps({"file": str(path), "labels": labels}) + "\n"


def _lines(path: Path, rows: list[tuple[str, float, float]]) -> Iterator[str]:
    yield f"{path}\n"
    for label, share, cosine in sorted(rows, key=lambda row: -row[1]):
        yield f"  {share:6.1%}  cosine {cosine:+.4f}  {label}\n"
