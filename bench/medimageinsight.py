"""Measure MedImageInsight's image encoder on this machine's device: python -m bench.medimageinsight

1. Images per second at 480 x 480 in each precision that the hardware has, eager and, with
   --compiled, by torch.compile at fixed batch sizes (CUDA graphs on CUDA).
2. The share of the device's measured matrix rate that this is: work counted by torch, the rate of
   one large product in the same precision on the same device. Aim on a GPU: 0.5.
3. How far the embeddings of each precision lie from float32: least cosine, greatest difference.
   Aim: cosine at least 0.999.
4. With --full-import FOLDER: a file of the official 601 names and shapes, filled at random, through
   `firstread models import` into FOLDER and one image through what came of it; seconds and memory.

Weights are random throughout: speed does not depend on them, and nothing here is about accuracy.
Without CUDA a small twin is measured unless --size full asks for the official network.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from model.clip_tokenizer import END, MERGES, START, VOCABULARY
from model.encoders.encoder import Encoder
from model.encoders.medimageinsight import MedImageInsight, MedImageInsightSpec
from model.execution import (
    HalfPrecisionEncoder,
    choose_device,
    compile_forward,
    has_bfloat16,
)
from model.importing import expected_medimageinsight, import_checkpoint
from model.pipelines import load_encoder

TWIN = MedImageInsightSpec(widths=(32, 64, 128, 256), heads=(1, 2, 4, 8), depths=(1, 1, 2, 1))
MATRIX_SIDE = {"cuda": 8192, "cpu": 1024}


class Arm(NamedTuple):
    """One way to run the encoder."""

    name: str
    encoder: Encoder
    dtype: torch.dtype


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--size", choices=("auto", "full", "twin"), default="auto")
    parser.add_argument("--size-px", type=int, default=0, help="default: 480, the twin's 96")
    parser.add_argument("--batch", type=int, nargs="*", default=[])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--full-import", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    if arguments.full_import is not None:
        measure_import(arguments.full_import)
        return
    full = arguments.size == "full" or (arguments.size == "auto" and device.type == "cuda")
    spec, side = (MedImageInsightSpec(), 480) if full else (TWIN, 96)
    side = arguments.size_px or side
    batches = arguments.batch or ([1, 8, 32, 64] if device.type == "cuda" else [1, 4])
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{'official network' if full else 'small twin'}, random weights, {side} px, on {name}")
    gflop = count_gflop(spec, side)
    print(f"work: {gflop:.1f} GFLOP per image, counted by torch")
    torch.manual_seed(0)
    encoder = MedImageInsight(spec).to(device).eval()
    probe = torch.rand(max(batches), 1, side, side, device=device)
    reference = embed(encoder, probe[:4])
    for arm in arms(encoder, device, compiled=arguments.compiled):
        rate = matrix_rate(device, arm.dtype, arguments.seconds)
        cosine, difference = distance(embed(arm.encoder, probe[:4]), reference)
        print(f"{arm.name}: matrix rate {rate / 1e3:.2f} TFLOP/s")
        for batch in batches:
            per_s = images_per_s(arm.encoder, probe[:batch], arguments.seconds)
            share = per_s * gflop / rate
            print(f"  batch {batch:3d}: {per_s:8.2f} images/s, share {share:.2f}")
        print(f"  beside float32: least cosine {cosine:.6f}, greatest difference {difference:.2e}")
    if not has_bfloat16(device):
        print("bfloat16: not measured, this hardware has no instructions for it")
    if not arguments.compiled:
        print("compiled: not measured, ask with --compiled")


def arms(encoder: MedImageInsight, device: torch.device, *, compiled: bool) -> list[Arm]:
    """Give every way to run that the device has; each has weights of its own."""
    found = [Arm("float32, eager", encoder, torch.float32)]
    if has_bfloat16(device):
        twin = MedImageInsight(encoder.spec).to(device)
        twin.load_state_dict(encoder.state_dict())
        half = HalfPrecisionEncoder(twin.eval()).eval()
        found.append(Arm("bfloat16, eager", half, torch.bfloat16))
    if compiled:
        for arm in tuple(found):
            assert isinstance(arm.encoder, nn.Module)
            fast = compile_forward(arm.encoder, device)
            found.append(Arm(arm.name.replace("eager", "compiled"), fast, arm.dtype))
    return found


def count_gflop(spec: MedImageInsightSpec, side: int) -> float:
    """Count the floating-point operations of one image, two for each multiplication and sum."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        MedImageInsight(spec).eval()(torch.zeros(1, 1, side, side))
    return counter.get_total_flops() / 1e9


def matrix_rate(device: torch.device, dtype: torch.dtype, seconds: float) -> float:
    """Measure one large square product: GFLOP per second."""
    side = MATRIX_SIDE.get(device.type, 1024)
    one, other = (torch.rand(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / 1e9 * per_second(lambda: one @ other, device, seconds)


def images_per_s(encoder: Encoder, images: Tensor, seconds: float) -> float:
    """Measure forward passes of one batch, its copy to the device not included."""
    with torch.inference_mode():
        return len(images) * per_second(lambda: encoder(images), images.device, seconds)


def per_second(call: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Call for some seconds after three calls that do not count."""
    for _ in range(3):
        call()
    count, start = 0, _now(device)
    while _now(device) - start < seconds or count < 3:
        call()
        count += 1
    return count / (_now(device) - start)


def embed(encoder: Encoder, images: Tensor) -> Tensor:
    """Encode to float64 on the CPU."""
    with torch.inference_mode():
        return encoder(images).embedding.double().cpu()


def distance(ours: Tensor, theirs: Tensor) -> tuple[float, float]:
    """Give the least cosine and the greatest absolute difference."""
    cosine = torch.nn.functional.cosine_similarity(ours, theirs, dim=-1).min().item()
    return cosine, (ours - theirs).abs().max().item()


def measure_import(folder: Path) -> None:
    """Fill the official names and shapes at random, import them, run one image."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = MedImageInsightSpec()
    expected = expected_medimageinsight(spec)
    generator = torch.Generator().manual_seed(0)
    checkpoint = folder / "vision_model" / "random.pt"
    checkpoint.parent.mkdir(exist_ok=True)
    started = time.perf_counter()
    tensors = {n: torch.randn(shape, generator=generator) * 0.02 for n, shape in expected.items()}
    save_file(tensors, checkpoint)
    del tensors
    print(f"{len(expected)} tensors, {checkpoint.stat().st_size:,} bytes, filled at random")
    _report("made and written", started)
    write_placeholder_tokenizer(folder / "language_model" / "placeholder", spec.text.vocabulary)
    started = time.perf_counter()
    imported = import_checkpoint("medimageinsight", folder, folder / "bundle", say=print)
    _report("imported: checked, hashed, renamed, written, read back", started)
    started = time.perf_counter()
    encoder = load_encoder(imported.bundle)
    _report("loaded", started)
    started = time.perf_counter()
    with torch.inference_mode():
        features = encoder(torch.rand(1, 1, 480, 480, generator=generator))
    _report("one image of 480 x 480 in float32", started)
    assert features.embedding.isfinite().all()
    length = features.embedding.norm().item()
    print(f"embedding {tuple(features.embedding.shape)} of length {length:.6f}, ", end="")
    print(f"map {tuple(features.spatial.shape)}; random weights")


def write_placeholder_tokenizer(folder: Path, size: int) -> None:
    """Write a vocabulary of the right size without merges: enough to be imported, not to read."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = [f"<placeholder {number}>" for number in range(size - 2)]
    numbers = {piece: number for number, piece in enumerate([*pieces, START, END])}
    (folder / VOCABULARY).write_text(json.dumps(numbers))
    (folder / MERGES).write_text("#version: 0.2\n")


def _report(what: str, started: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    cpu = time.process_time()
    wall = time.perf_counter() - started
    print(f"{what}: {wall:.1f} s; so far {cpu:.1f} CPU seconds, peak {peak:.2f} GB resident")


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


if __name__ == "__main__":
    main()
