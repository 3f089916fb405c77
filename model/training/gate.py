"""Train the gate: python -m model.training.gate --data ../shared/data --out runs/gate.

Leaves ``gate.safetensors`` and ``gate.json`` (limits and measured rates), which
``model.training.gate_packing`` puts into a bundle, ``run.json``, and the glances, so that a second
start with the same seed, data and code goes faster. About five minutes on one core; ``--test``
then measures, which is a look at test and logged.
"""

import argparse
import hashlib
import sys
from pathlib import Path

import cv2
import numpy as np
import torch

from model.checkpoint_files import file_sha256
from model.gate import GATE, Gate, GateSpec, Kind, load_gate
from model.training.gate_fit import GateConfig, choose_limits, fit_gate
from model.training.gate_rates import describe_all, log_gate_look, measure_parts
from model.training.gate_set import Part, gate_parts, parts_key
from model.training.run_record import write_run_record

SPEC = "gate.json"
GLANCES = "glances.npz"


def train_gate(data: Path, out: Path, config: GateConfig) -> Gate:
    """Train, choose the limits on the adults of val, and measure all of val."""
    out.mkdir(parents=True, exist_ok=True)
    parts = load_parts(data, out / GLANCES, config.seed)
    write_run_record(out, config, {"parts": _counts(parts), "sha256": _fingerprint(parts)})
    training = [part for part in parts if part.split == "train"]
    features = np.concatenate([describe_all(part.images) for part in training])
    _say(f"{len(features)} images described, {features.shape[1]} features each")
    kinds = [part.kind for part in training for _ in part.images]
    gate = fit_gate(features, kinds, config)
    adults = [part for part in parts if part.split == "val" and part.kind is Kind.ADULT]
    of_adults = np.concatenate([describe_all(part.images) for part in adults])
    spec = choose_limits(gate, of_adults, f"{len(of_adults)} adults' radiographs of val", config)
    gate = gate.with_limits(spec)
    gate.write(out / GATE)
    return measure(gate, parts, "val", out)


def measure(gate: Gate, parts: list[Part], split: str, out: Path) -> Gate:
    """Measure one split, keep what was measured of the others, and write the description."""
    rates = measure_parts(gate, [part for part in parts if part.split == split])
    for rate in rates:
        _say(f"{rate.name:50s} {rate.refused:4d} of {rate.n:4d} refused  {rate.note}")
    kept = [rate for rate in gate.spec.measured if not rate.name.startswith(f"{split}: ")]
    gate = gate.with_limits(gate.spec.model_copy(update={"measured": (*kept, *rates)}))
    (out / SPEC).write_text(gate.spec.model_dump_json(indent=2) + "\n")
    return gate


def read_trained_gate(folder: Path) -> Gate:
    """Read what ``train_gate`` left."""
    return load_gate(folder / GATE, GateSpec.model_validate_json((folder / SPEC).read_bytes()))


def load_parts(data: Path, cache: Path, seed: int) -> list[Part]:
    """Make the parts, or read them from an earlier start with the same seed, data and code."""
    key = parts_key(data, seed)
    if cache.exists():
        with np.load(cache) as kept:
            if "key" in kept and str(kept["key"]) == key:
                rows = [str(row).split("|") for row in kept["rows"]]
                return [
                    Part(split, name, Kind[kind], kept[str(number)])
                    for number, (split, name, kind) in enumerate(rows)
                ]
    parts = []
    for part in gate_parts(data, seed):
        parts.append(part)
        _say(f"{part.split:6s}{len(part.images):5d}  {part.name}")
    arrays = {str(number): part.images for number, part in enumerate(parts)}
    rows = np.array([f"{part.split}|{part.name}|{part.kind.name}" for part in parts])
    np.savez_compressed(cache, rows=rows, key=np.array(key), **arrays)  # pyright: ignore[reportArgumentType]
    return parts


def _counts(parts: list[Part]) -> dict[str, int]:
    return {f"{part.split}: {part.name} ({part.kind.name})": len(part.images) for part in parts}


def _fingerprint(parts: list[Part]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{part.split} {part.name} {part.kind.name}\n".encode())
        digest.update(part.images.tobytes())
    return digest.hexdigest()


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def main() -> None:
    """Read the command line; train, or measure what was trained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of cxr, ct and wsi")
    parser.add_argument("--out", type=Path, required=True, help="folder for the result")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--test", action="store_true", help="train nothing; measure what was trained on test"
    )
    parser.add_argument("--test-log", type=Path, default=Path("docs/test_log.csv"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if given.test:
        parts = load_parts(given.data, given.out / GLANCES, given.seed)
        gate = measure(read_trained_gate(given.out), parts, "test", given.out)
        log_gate_look(
            given.test_log, gate.spec.measured, "gate", "gate", file_sha256(given.out / GATE)
        )
    else:
        train_gate(given.data, given.out, GateConfig(seed=given.seed))


if __name__ == "__main__":
    main()
