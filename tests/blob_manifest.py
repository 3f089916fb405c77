"""A manifest of made-up images: noise, with a bright square in the abnormal ones."""

from pathlib import Path

import numpy as np
from PIL import Image

from model.training.manifests import Manifest, ManifestRow, write_manifest


def write_blob_manifest(
    folder: Path, *, train: int = 24, val: int = 16, test: int = 0, side: int = 64
) -> Manifest:
    """Write PNG files and their manifest; every second image is abnormal, findings are named."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    rows: list[ManifestRow] = []
    for split, count in (("train", train), ("val", val), ("test", test)):
        for number in range(count):
            label = number % 2 == 1
            image = generator.integers(0, 90, (side, side), dtype=np.uint8)
            if label:
                image[side // 4 : side // 2, side // 4 : side // 2] += 150
            path = folder / f"{split}-{number:03d}.png"
            Image.fromarray(image).save(path)
            columns = {
                "sex": "FM"[number % 4 // 2],
                "age": str(20 + 5 * (number % 13)),
                "dataset": "blobs",
                "findings": "Square|Bright" if label else "No finding",
            }
            rows.append(ManifestRow(path, label, f"{split}-{number // 2}", split, columns))
    return write_manifest(folder / "manifest.csv", rows)
