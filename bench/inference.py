"""Compare ways to run the compact bundle on this CPU: python -m bench.inference

1. The forward pass with heatmap, a batch at a time: eager, torch.compile at a fixed batch size,
   ONNX Runtime and OpenVINO. Arms take turns, so that a busy machine slows all of them alike; what
   counts is the ratio to eager. Each arm's scores are compared with eager's first. What is not
   installed is named, not skipped in silence.
2. End to end from DICOM with heatmap, as `firstread triage` does it: children decode and prepare,
   this process predicts. Aim: 8 images/s on two cores.

CPU time is given beside wall time: on a shared machine it is the figure to trust. Two idle cores
do at most 2 / (CPU seconds per image) images per second.

ONNX Runtime and OpenVINO are no dependencies of the project. To measure them too:
pip install onnx onnxscript onnxruntime openvino
"""

import argparse
import importlib.util
import logging
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.settings import Settings
from firstread.image_search import find_files
from firstread.naming_bundles import named_bundle
from firstread.offline_examining import DEFAULT_PIPELINE, Examiner
from model.bundles import SHIPPED, Bundle, find_bundles
from model.execution import BATCH_SIZES, compile_forward
from model.network import TriageNetwork, build_network
from model.pipelines import load_pipeline
from tests.radiographs import make_exposure, make_radiograph, write_radiograph

ARMS = ("eager", "compiled", "onnxruntime", "openvino")

Forward = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class Arm(NamedTuple):
    """One way to run; ``forward`` turns images (B, 1, S, S) into scores (B,)."""

    name: str
    forward: Forward
    ready_after_s: float


class Turn(NamedTuple):
    """What one turn of an arm took, per image."""

    wall_s: float
    cpu_s: float


class ForwardWithHeatmap(nn.Module):
    """The network as other runtimes want it: plain tensors out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give score, INSIGHT's probability and heatmap."""
        output = self.network(images)
        return output.score, output.insight.probability, output.insight.heatmap


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--bundle", help="folder or name; default: the newest chest bundle")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--batch", type=int, default=8, choices=BATCH_SIZES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=Path, help="folder of DICOM; default: simulated ones")
    parser.add_argument("--count", type=int, default=48, help="images of the end-to-end part")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS, help="default: all")
    parser.add_argument("--skip-forward", action="store_true", help="the end-to-end part alone")
    arguments = parser.parse_args()
    bundle = named_bundle(arguments.bundle) if arguments.bundle else newest_chest_bundle()
    torch.set_num_threads(arguments.threads)
    print(
        f"{bundle.name}@{bundle.version}, {bundle.preprocessing.size_px} px, "
        f"{arguments.threads} threads, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    with tempfile.TemporaryDirectory() as scratch:
        if not arguments.skip_forward:
            measure_forward(
                bundle, arguments.arms, arguments.batch, arguments.rounds, Path(scratch)
            )
        measure_end_to_end(bundle, arguments.images, arguments.count, Path(scratch))


def newest_chest_bundle() -> Bundle:
    """Give the newest shipped bundle for radiographs."""
    return [one for one in find_bundles(SHIPPED) if one.pipeline == DEFAULT_PIPELINE][-1]


def measure_forward(
    bundle: Bundle, asked: Sequence[str], batch: int, rounds: int, scratch: Path
) -> None:
    """Let the arms take turns on one batch, and print what an image takes."""
    side = bundle.preprocessing.size_px
    images = np.random.default_rng(0).normal(size=(batch, 1, side, side)).astype(np.float32)
    built = list(build_arms(bundle, asked, images, scratch))
    reference = built[0].forward(images)
    turns: dict[str, list[Turn]] = {arm.name: [] for arm in built}
    for _ in range(rounds):
        for arm in built:
            turns[arm.name].append(take_turn(arm.forward, images))
    eager = _median(turns[built[0].name], "cpu_s")
    print(f"\nforward with heatmap, batch {batch}, median of {rounds} turns")
    print("arm            images/s  CPU ms/image  CPU ratio  greatest difference  ready after s")
    for arm in built:
        wall, cpu = (_median(turns[arm.name], of) for of in ("wall_s", "cpu_s"))
        difference = np.abs(arm.forward(images) - reference).max()
        print(
            f"{arm.name:<14} {1 / wall:8.1f}  {cpu * 1e3:12.1f}  {eager / cpu:9.2f}  "
            f"{difference:19.1e}  {arm.ready_after_s:13.1f}"
        )


def build_arms(
    bundle: Bundle, asked: Sequence[str], images: NDArray[np.float32], scratch: Path
) -> Iterator[Arm]:
    """Make every arm that was asked for ready, and name those that are not; eager is the first."""
    network = _network(bundle)
    yield _ready("eager", lambda: _torch_forward(network), images)
    for name in sorted(set(ARMS) - {*asked, "eager"}):
        print(f"{name}: not measured, not asked for")
    if "compiled" in asked:
        yield _ready(
            "compiled",
            lambda: _torch_forward(compile_forward(network, torch.device("cpu"))),
            images,
        )
    wanted = {"onnxruntime": _onnx_forward, "openvino": _openvino_forward}
    for name, build in wanted.items():
        if name not in asked:
            continue
        absent = [one for one in ("onnx", "onnxscript", name) if not importlib.util.find_spec(one)]
        if absent:
            print(f"{name}: not measured, not installed: {', '.join(absent)}")
            continue
        path = scratch / "network.onnx"
        if not path.exists():
            export(network, images, path)
        yield _ready(name, lambda build=build, path=path: build(path), images)


def export(network: nn.Module, images: NDArray[np.float32], path: Path) -> None:
    """Write the network as ONNX at a fixed batch size."""
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    wrapped = ForwardWithHeatmap(network).eval()
    torch.onnx.export(wrapped, (torch.from_numpy(images),), path, dynamo=True, verbose=False)


def take_turn(forward: Forward, images: NDArray[np.float32], least_s: float = 1.0) -> Turn:
    """Run for at least a second of wall time."""
    count, wall, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < least_s:
        forward(images)
        count += len(images)
    return Turn((time.perf_counter() - wall) / count, (time.process_time() - cpu) / count)


def measure_end_to_end(bundle: Bundle, images: Path | None, count: int, scratch: Path) -> None:
    """Triage files as the command does, without its output."""
    if images is None:
        exposure = make_exposure(12, (2000, 1700))
        paths = [
            write_radiograph(make_radiograph(exposure, 12), scratch / f"{number}.dcm")
            for number in range(count)
        ]
    else:
        paths = list(find_files([images]))[:count]
    settings = Settings.model_validate({"unknown_age": "accept"})
    if images is None:  # what is simulated here is no chest, and a gate would refuse it
        bundle = bundle.model_copy(update={"gate": None})
    pipeline = load_pipeline(bundle, "cpu")
    side = bundle.preprocessing.size_px
    pipeline.predict(np.zeros((1, side, side), np.float32))
    children = _children_cpu_s()
    done = refused = failed = 0
    with Examiner(settings, {DEFAULT_PIPELINE: bundle}, scratch, with_renditions=False) as examiner:
        wall, cpu = time.perf_counter(), time.process_time()
        waiting: list[NDArray[np.float32]] = []
        for seen in examiner.examine_all(paths):
            failed += seen.failure is not None
            refused += seen.examined is not None and not seen.examined.eligible
            if seen.examined is not None and seen.examined.pixels is not None:
                waiting.append(seen.examined.pixels)
            if len(waiting) == settings.max_batch:
                done += len(pipeline.predict(np.stack(waiting)))
                waiting = []
        if waiting:
            done += len(pipeline.predict(np.stack(waiting)))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    decoding = _children_cpu_s() - children
    print(f"\nend to end from DICOM with heatmap: {done} done, {refused} refused, {failed} failed")
    if done:
        total = (cpu + decoding) / done
        print(
            f"{done / wall:.1f} images/s by the clock at load {os.getloadavg()[0]:.1f}; CPU per "
            f"image {total * 1e3:.0f} ms, of it {decoding / done * 1e3:.0f} ms decoding and its "
            f"start: at most {2 / total:.1f} images/s on two idle cores"
        )


def _network(bundle: Bundle) -> TriageNetwork:
    from safetensors.torch import load_file

    network = build_network(bundle.encoder)
    weights = load_file(bundle.weights)
    network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    return network.eval()


def _torch_forward(network: nn.Module) -> Forward:
    def forward(images: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            batch = torch.from_numpy(images).contiguous(memory_format=torch.channels_last)
            return network(batch).score.numpy().copy()

    return forward


def _onnx_forward(path: Path) -> Forward:
    onnxruntime: Any = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def _openvino_forward(path: Path) -> Forward:
    openvino: Any = import_module("openvino")
    core = openvino.Core()
    threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = core.compile_model(core.read_model(path), "CPU", threads)
    return lambda images: compiled([images])[compiled.output(0)]


def _ready(name: str, build: Callable[[], Forward], images: NDArray[np.float32]) -> Arm:
    started = time.perf_counter()
    forward = build()
    forward(images)
    return Arm(name, forward, time.perf_counter() - started)


def _median(turns: list[Turn], of: str) -> float:
    return float(np.median([getattr(turn, of) for turn in turns]))


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
