"""Measure on generated slides whether training on slides learns, and points where it should.

``python -m model.training.slide_proof --out runs/slide_proof``: with a small random encoder.

Drawings, not tissue: the figures say nothing about pathology. See docs/slides.md for what it gave.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from model.bundles import Bundle, read_bundle
from model.evaluation.discrimination import auc, auc_interval
from model.execution import choose_device
from model.slide.dicom_writing import write_slide
from model.slide.generated import MPP_UM, generate_slide
from model.slide.network import build_slide_network
from model.slide.packing import write_slide_bundle
from model.slide.pipeline import load_slide_pipeline
from model.slide.tiling import SlideTiling
from model.slide.whole_slide import open_slide
from model.training.manifests import Manifest, ManifestRow, read_manifest, write_manifest
from model.training.slide import SlideTraining, train_slides

MADE_OF = "generated slides: drawings, no tissue"
PROOF = "proof.json"


def main() -> None:
    """Generate, train, and measure on held-out slides."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", type=Path, help="bundle with the encoder; default: random")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--train", type=int, default=40, help="slides")
    parser.add_argument("--val", type=int, default=12, help="slides")
    parser.add_argument("--test", type=int, default=30, help="slides")
    parser.add_argument("--size-px", type=int, default=560, help="side of a slide")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--tiles-per-step", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--slides-per-update", type=int, default=2)
    parser.add_argument("--mpp-um", type=float, default=0.5, help="size of a pixel of a tile")
    parser.add_argument("--tile-px", type=int, default=112, help="side of a tile")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    counts = {"train": options.train, "val": options.val, "test": options.test}
    manifest = generate_set(options.out / "slides", counts, options.size_px)
    bundle = train_slides(
        manifest,
        read_bundle(options.encoder or write_random_encoder(options.out / "encoder").folder),
        options.out,
        SlideTraining(
            epochs=options.epochs,
            learning_rate=options.learning_rate,
            slides_per_update=options.slides_per_update,
            tiles_per_step=options.tiles_per_step,
            mpp_um=options.mpp_um,
            tile_px=options.tile_px,
        ),
        device=choose_device(options.device),
        made_of=MADE_OF,
    )
    proof = measure(bundle, manifest, options.device)
    (options.out / PROOF).write_text(json.dumps(proof, indent=2) + "\n")
    print(json.dumps(proof, indent=2))  # noqa: T201


def generate_set(folder: Path, counts: dict[str, int], size_px: int) -> Manifest:
    """Draw slides, every second one with a tumour, beside their masks; keep what is there."""
    rows = []
    splits = [split for split, count in counts.items() for _ in range(count)]
    for seed, split in enumerate(splits):
        slide = folder / f"{seed:04d}"
        mask = folder / f"{seed:04d}.mask.png"
        if not mask.exists():
            drawn = generate_slide(seed, tumour=bool(seed % 2), size_px=(size_px, size_px))
            write_slide(slide, drawn.pixels, mpp_um=MPP_UM)
            cv2.imwrite(str(mask), drawn.tumour.astype(np.uint8) * 255)
        rows.append(ManifestRow(slide, bool(seed % 2), f"generated-{seed}", split))
    write_manifest(folder / "manifest.csv", rows)
    return read_manifest(folder / "manifest.csv")


def write_random_encoder(folder: Path) -> Bundle:
    """Write a bundle with a small random encoder, which tells textures apart all the same."""
    torch.manual_seed(0)
    spec: dict[str, Any] = {
        "kind": "compact_davit",
        "widths": (16, 32, 64, 64),
        "depths": (1, 1, 1, 1),
        "heads": (1, 2, 4, 4),
        "window_size": 7,
    }
    return write_slide_bundle(
        folder,
        build_slide_network(spec),
        encoder=spec,
        tiling=SlideTiling(tile_px=112, colour="grey", mean=0.5, std=0.25),
        name="random_encoder",
        version="0.0.1",
        licence="Apache-2.0",
        training={"weights": "random"},
        card="Random weights.",
    )


def measure(bundle: Bundle, manifest: Manifest, device: str) -> dict[str, Any]:
    """Read the test slides through the pipeline: area under the curve, and where it points.

    A hit is a hottest cell of the whole slide whose square touches the tumour. Beside it the share
    of tissue that is tumour, which is what a random cell of tissue would hit.
    """
    pipeline = load_slide_pipeline(bundle, device)
    labels, scores, hits, chances, cell_areas = [], [], [], [], []
    for number, row in enumerate(manifest.of("test")):
        with tempfile.TemporaryDirectory() as scratch, open_slide(sorted(row.path.iterdir())) as s:
            reading = pipeline.read(s, Path(scratch) / "map.raw")
            cells = reading.heatmap.read_rows(0, reading.heatmap.shape[0]).astype(np.float32)
        labels.append(row.label)
        scores.append(reading.score)
        print(f"test slide {number + 1}", file=sys.stderr)  # noqa: T201
        if row.label:
            truth = _tumour_by_cell(row.path, cells.shape, reading.cell_um)
            seen = np.isfinite(cells)
            hits.append(bool(truth.flat[int(np.nanargmax(cells))] > 0))
            chances.append(float((truth[seen] > 0).mean()))
            cell_areas.append(auc(truth[seen] > 0.5, cells[seen]))
    return {
        "made_of": MADE_OF,
        "bundle_sha256": bundle.sha256,
        "test": auc_interval(labels, scores)._asdict(),
        "hottest_cell_on_tumour": [sum(hits), len(hits)],
        "chance_of_a_hit": float(np.mean(chances)),
        "auc_over_cells_mean": float(np.mean(cell_areas)),
    }


def _tumour_by_cell(slide: Path, shape: tuple[int, int], cell_um: float) -> NDArray[np.float32]:
    """Give the share of tumour in each cell of the heatmap; cells beyond the edge have none."""
    mask = cv2.imread(str(slide.with_suffix(".mask.png")), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise FileNotFoundError(slide.with_suffix(".mask.png"))
    cell_px = round(cell_um / MPP_UM)
    whole = np.zeros((shape[0] * cell_px, shape[1] * cell_px), np.float32)
    whole[: mask.shape[0], : mask.shape[1]] = mask / 255
    return whole.reshape(shape[0], cell_px, shape[1], cell_px).mean(axis=(1, 3))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
