"""Measure the memory of the slide pipeline at two sizes: python -m bench.slide

Writes two generated slides, 4,000 and 40,000 pixels a side, and reads each in a process of its own
with random weights. The memory that grows with the slide should be the picture on which tissue is
sought; the wanted ratio of the two peaks is below 1.3, for a hundred times the pixels. The large
slide repeats a few tiles, so that it is written in seconds; its files take about 100 MB.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.memory import peak_mb

SIDES = (4_000, 40_000)
FRAME_PX = 512
MPP_UM = 0.5
REDUCTIONS = (1, 4, 16)


class Palette(NamedTuple):
    """Frames of the slide, RGB (512, 512, 3): glass, and tissue that can be repeated."""

    glass: NDArray[np.uint8]
    tissue: NDArray[np.uint8]


def main() -> None:
    """Write, read and print both."""
    parser = argparse.ArgumentParser(description="Memory of the slide pipeline")
    parser.add_argument("--tissue-tiles", type=int, default=400, help="at most, on the large one")
    parser.add_argument("--limit-s", type=int, default=280, help="for reading one slide")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        print(json.dumps(read(options.read)))
        return
    peaks = []
    with tempfile.TemporaryDirectory(prefix="firstread-bench-") as folder:
        print("random weights: the time and the memory mean something, the score nothing")
        print(
            f"{'side px':>8} {'tiles':>7} {'cells':>9} {'file MB':>8} {'s':>6}"
            f" {'before MB':>9} {'peak MB':>8}"
        )
        for side in SIDES:
            slide = Path(folder) / str(side)
            write(slide, side, options.tissue_tiles)
            child = [sys.executable, "-m", "bench.slide", "--read", str(slide)]
            answer = subprocess.run(child, capture_output=True, text=True, timeout=options.limit_s)
            if answer.returncode:
                raise SystemExit(answer.stderr)
            row = json.loads(answer.stdout.splitlines()[-1])
            peaks.append(row["peak_mb"])
            size = sum(file.stat().st_size for file in slide.glob("*.dcm")) / 1e6
            row["size_mb"] = size
            print(
                "{side:8} {tiles:7} {cells:9} {size_mb:8.0f} {seconds:6.1f}"
                " {before_mb:9.0f} {peak_mb:8.0f}".format(side=side, **row),
                flush=True,
            )
    print(f"100 times the pixels, {peaks[1] / peaks[0]:.2f} times the peak memory")


def write(folder: Path, side: int, most_tiles: int) -> None:
    """Write a slide with one rectangle of tissue, frame by frame, at three levels."""
    from model.slide.dicom_writing import describe_level, encode_jpeg, new_identity, write_level
    from model.slide.generated import generate_slide

    folder.mkdir()
    drawn = generate_slide(1, tumour=False, size_px=(2048, 2048))
    tissue = drawn.pixels[768 : 768 + FRAME_PX, 768 : 768 + FRAME_PX]
    palette = Palette(np.full_like(tissue, 244), tissue)
    # As many frames of tissue as give about the wanted tiles, on the diagonal of the slide.
    frames = -(-side // FRAME_PX)
    kinds = np.zeros((frames, frames), dtype=bool)
    wanted = min(most_tiles * 224**2 / FRAME_PX**2, 0.4 * frames**2)
    for offset in range(frames):
        for place in range(frames - offset):
            if kinds.sum() < wanted:
                kinds[place, place + offset] = kinds[place + offset, place] = True
    identity = new_identity()
    for number, reduction in enumerate(REDUCTIONS):
        size = (-(-side // reduction), -(-side // reduction))
        described = describe_level(
            identity, size, FRAME_PX, MPP_UM * reduction, resampled=reduction > 1
        )
        encoded = _frames(palette, kinds, reduction, encode_jpeg)
        write_level(folder / f"level_{number}.dcm", described, encoded)


def _frames(
    palette: Palette,
    kinds: NDArray[np.bool_],
    reduction: int,
    encode: Callable[[NDArray[np.uint8]], bytes],
) -> Iterator[bytes]:
    """Give the frames of a level, each a mosaic of reduced frames of the base."""
    small = [
        cv2.resize(frame, None, fx=1 / reduction, fy=1 / reduction, interpolation=cv2.INTER_AREA)
        for frame in palette
    ]
    known: dict[bytes, bytes] = {}
    for top in range(0, kinds.shape[0], reduction):
        for left in range(0, kinds.shape[1], reduction):
            part = np.zeros((reduction, reduction), dtype=bool)
            there = kinds[top : top + reduction, left : left + reduction]
            part[: there.shape[0], : there.shape[1]] = there
            key = part.tobytes()
            if key not in known:
                mosaic = np.vstack([np.hstack([small[int(kind)] for kind in row]) for row in part])
                known[key] = encode(mosaic.astype(np.uint8))
            yield known[key]


def read(folder: Path) -> dict[str, float]:
    """Read a slide with random weights and give what it took; runs in a process of its own."""
    import torch

    from model.slide.pipeline import load_slide_pipeline
    from model.slide.stitching import build_levels, write_pyramid
    from model.slide.tiling import SlideTiling
    from model.slide.whole_slide import open_slide
    from tests.slides import ENCODER, write_random_slide_bundle

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="firstread-bench-") as scratch:
        bundle = write_random_slide_bundle(
            Path(scratch) / "bundle", encoder=ENCODER, tiling=SlideTiling(colour="grey")
        )
        pipeline = load_slide_pipeline(bundle, "cpu")
        before = peak_mb()
        started = time.perf_counter()
        with open_slide(sorted(folder.glob("*.dcm"))) as slide:
            reading = pipeline.read(slide, Path(scratch) / "map.raw")
            levels = build_levels(reading.heatmap)
            write_pyramid(levels, Path(scratch) / "map.tiff", cell_um=8.0, description={})
        rows, columns = reading.heatmap.shape
        return {
            "tiles": reading.plan.grid.tiles,
            "cells": rows * columns,
            "seconds": time.perf_counter() - started,
            "before_mb": before,
            "peak_mb": peak_mb(),
        }


if __name__ == "__main__":
    main()
