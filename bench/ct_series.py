"""Measure time and memory of the CT pipeline at two lengths: python -m bench.ct_series

Writes generated series of 512 x 512 slices and reads each, from DICOM to heatmap file and pictures,
in a process of its own with random weights. Four times the slices should take hardly more memory:
the wanted ratio of the two peaks is below 1.1. ``--encoder dinov2`` takes the official shape
(ViT-L/14 with registers at 518 px); on a CPU give it few slices.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.memory import peak_mb

SIDE_PX = 512
ENCODERS = {
    "compact": ({"kind": "compact_davit"}, 192),
    "dinov2": ({"kind": "dinov2"}, 518),
}


def main() -> None:
    """Write, read and print each length."""
    parser = argparse.ArgumentParser(description="Time and memory of the CT pipeline")
    parser.add_argument("--slices", type=int, nargs="+", default=[75, 300])
    parser.add_argument("--encoder", choices=tuple(ENCODERS), default="compact")
    parser.add_argument("--limit-s", type=int, default=280, help="for reading one series")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        print(json.dumps(read(options.read)))
        return
    peaks = []
    with tempfile.TemporaryDirectory(prefix="firstread-bench-") as scratch:
        print("random weights: the time and the memory mean something, the score nothing")
        print(f"{'slices':>7} {'pixels MB':>9} {'s':>7} {'before MB':>9} {'peak MB':>8}")
        for count in options.slices:
            folder = Path(scratch) / str(count)
            write(folder, count, options.encoder)
            child = [sys.executable, "-m", "bench.ct_series", "--read", str(folder)]
            answer = subprocess.run(child, capture_output=True, text=True, timeout=options.limit_s)
            if answer.returncode:
                raise SystemExit(answer.stderr)
            row = json.loads(answer.stdout.splitlines()[-1])
            peaks.append(row["peak_mb"])
            print(
                f"{count:7} {count * SIDE_PX**2 * 2 / 1e6:9.0f} {row['seconds']:7.1f}"
                f" {row['before_mb']:9.0f} {row['peak_mb']:8.0f}",
                flush=True,
            )
    if len(peaks) > 1:
        more = options.slices[-1] / options.slices[0]
        print(f"{more:g} times the slices, {peaks[-1] / peaks[0]:.2f} times the peak memory")


def write(folder: Path, count: int, encoder: str) -> None:
    """Write a series of noise with lungs in it, and a bundle of random weights that reads it."""
    from model.preprocessing import PreprocessingSpec
    from tests.ct_bundles import write_ct_bundle
    from tests.ct_series import make_body, make_slices, put_hounsfield, write_slices

    rng = np.random.default_rng(1)
    body = make_body(0, (SIDE_PX, SIDE_PX)).astype(np.float64)
    slices = make_slices(count, step_mm=(0.0, 0.0, 1.0), shape=(1, 1), SliceThickness=1.0)
    for number, dataset in enumerate(slices):
        put_hounsfield(dataset, np.clip(body + rng.normal(0, 20, body.shape), -1024, 1000))
        write_slices([dataset], folder / "series" / f"{number:04d}")
        dataset.PixelData = b""
    spec, size_px = ENCODERS[encoder]
    preprocessing = PreprocessingSpec(size_px=size_px, stretch=False, mean=0.0, std=1.0)
    write_ct_bundle(folder / "bundle", encoder=spec, preprocessing=preprocessing)


def read(folder: Path) -> dict[str, float]:
    """Read one series and tell what it took; the decoding children have their own limit."""
    from common.settings import Settings
    from firstread.ct_triage import load
    from model.bundles import read_bundle

    pipeline = load(read_bundle(folder / "bundle"), Settings.model_validate({"device": "cpu"}))
    before_mb = peak_mb()
    started = time.monotonic()
    (unit,) = pipeline.find_units([folder / "series"])
    pipeline.analyse(unit, folder)
    return {
        "seconds": time.monotonic() - started,
        "before_mb": before_mb,
        "peak_mb": peak_mb(),
    }


if __name__ == "__main__":
    main()
