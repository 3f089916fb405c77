"""Compare the worker with its parts: python -m bench.worker

1. Images per second on a simulated device that takes 10 ms for each image (it sleeps: the GIL is
   free), beside the same device in a bare loop over full batches. Aim: 0.85. Claims, decoding in
   processes, batching and committed results all have to hide behind the device. Small images, so
   that the cores of a small machine are not what is measured; --side says otherwise.
2. CPU time per image of the worker and its decoders, beside decoding, rendition and forward pass in
   a bare loop over the same objects with the same bundle. Postgres' own time is not in it.
"""

import argparse
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sqlalchemy import select

from bench.ledger import queue_studies, temporary_postgres
from common.database import make_engine, make_sessions
from common.logs import configure_logs
from common.settings import Settings
from common.states import AnalysisState
from common.tables import Analysis, ModelVersion
from model.bundles import SHIPPED, Bundle, find_bundles
from model.eligibility import Policy
from model.examination import examine
from model.phantoms import generate_phantom
from model.pipelines import load_pipeline
from tests.radiographs import make_radiograph, write_radiograph
from tests.small_bundle import write_small_bundle
from worker.registration import activate_version, register
from worker.service import Service

DEVICE_S = 0.010


class Reading(NamedTuple):
    """A simulated prediction."""

    score: float
    insight_probability: float
    heatmap: NDArray[np.float16]


class SimulatedDevice:
    """Takes ten milliseconds for each image, whatever the batch."""

    def predict(self, images: NDArray[np.float32]) -> list[Reading]:
        """Sleep, and say nothing of use."""
        time.sleep(DEVICE_S * len(images))
        return [Reading(0.0, 0.5, np.zeros((15, 15), dtype=np.float16)) for _ in images]


def load_simulated(bundle: Bundle, device: str) -> SimulatedDevice:
    """Stand in for ``worker.loading.load_bundle``."""
    return SimulatedDevice()


def main() -> None:
    """Run both comparisons and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # pyright: ignore
    parser.add_argument("--images", type=int, default=600, help="on the simulated device")
    parser.add_argument("--side", type=int, default=256, help="of the images there")
    parser.add_argument("--real-images", type=int, default=60)
    parser.add_argument("--real-side", type=int, default=2048)
    options = parser.parse_args()
    configure_logs("bench", "error")
    with tempfile.TemporaryDirectory() as name, temporary_postgres() as url:
        folder = Path(name)
        compare_device(url, folder / "device", options.images, options.side)
        compare_cpu(url, folder / "cpu", options.real_images, options.real_side)


def compare_device(url: str, home: Path, count: int, side: int) -> None:
    """Print the worker's rate beside the simulated device's own."""
    images = np.zeros((16, 64, 64), dtype=np.float32)
    device, started = SimulatedDevice(), time.perf_counter()
    for _ in range(10):
        device.predict(images)
    bare = 160 / (time.perf_counter() - started)
    bundle = write_small_bundle(home / "small")
    service, seconds, cpu = run_worker(
        url, home, bundle, write_objects(home, side), count, load=load_simulated
    )
    print(f"simulated device, {DEVICE_S * 1000:.0f} ms an image, images of {side} px")
    print(f"  bare loop     {bare:7.1f} images/s")
    print(f"  worker        {count / seconds:7.1f} images/s, ratio {count / seconds / bare:.2f}")
    print(f"  the worker and its decoders spent {cpu / count * 1000:.1f} ms of CPU time an image")
    print(
        f"  {service.settings.worker_threads} threads, {service.settings.decode_processes} decoders"
    )


def compare_cpu(url: str, home: Path, count: int, side: int) -> None:
    """Print the worker's CPU time for an image beside that of its two main parts alone."""
    shipped = [bundle for bundle in find_bundles(SHIPPED) if bundle.pipeline == "chest_xray"]
    bundle = shipped[-1] if shipped else write_small_bundle(home / "small")
    objects = write_objects(home, side)
    torch.set_num_threads(1)
    pipeline = load_pipeline(bundle, "cpu")
    (home / "r").mkdir()
    bare: list[float] = []
    for number in range(count // 2):
        started = time.process_time()
        examined = examine(
            objects[number % len(objects)], bundle, Policy(), rendition=home / "r" / "r.png"
        )
        assert examined.pixels is not None, examined.reasons
        pipeline.predict(examined.pixels[None])
        bare.append(time.process_time() - started)
    plain = float(np.median(bare))
    _, seconds, cpu = run_worker(url, home, bundle, objects, count)
    name = bundle.name if shipped else "random weights"
    print(f"CPU time for an image of {side} px, {name}")
    print(f"  decoding, rendition, forward in a bare loop {plain * 1000:7.1f} ms")
    print(
        f"  worker with its decoders                    {cpu / count * 1000:7.1f} ms,"
        f" ratio {cpu / count / plain:.2f}; {count / seconds:.1f} images/s"
    )


def run_worker(
    url: str, home: Path, bundle: Bundle, objects: list[Path], count: int, **parts: object
) -> tuple[Service, float, float]:
    """Work off so many studies; gives the service, the seconds it took and the CPU seconds."""
    settings = Settings.model_validate(
        {"home": home, "database_url": url, "broker_url": "unix:///none", "log_level": "error"}
    )
    engine = make_engine(url)
    sessions = make_sessions(engine)
    with sessions.begin() as session:
        register(session, [bundle], actor="bench")
        version = session.scalars(
            select(ModelVersion).where(ModelVersion.bundle_sha256 == bundle.sha256)
        ).one()
        version.folder = str(bundle.folder)
        activate_version(session, version, actor="bench")
        queue_studies(session, settings, objects, count, version.id)
    service = Service(settings, **parts)  # pyright: ignore[reportArgumentType]
    service.start()
    while service.decoder.warm() < settings.decode_processes:
        time.sleep(0.1)
    before, started = cpu_seconds(service), time.perf_counter()
    with ThreadPoolExecutor(settings.worker_threads) as threads:
        rounds = -(-count // 100) + settings.worker_threads
        done = sum(threads.map(service.analyst.serve, range(rounds)))
    seconds, cpu = time.perf_counter() - started, cpu_seconds(service) - before
    service.stop()
    with sessions() as session:
        states = set(session.scalars(select(Analysis.state)))
    engine.dispose()
    assert (done, states) == (count, {AnalysisState.DONE}), (done, states)
    return service, seconds, cpu


def cpu_seconds(service: Service) -> float:
    """Measure the CPU time of this process and of the decoders so far."""
    ticks = os.sysconf("SC_CLK_TCK")
    total = time.process_time()
    for pid in service.decoder.pids():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / ticks
    return total


def write_objects(folder: Path, side: int, count: int = 4) -> list[Path]:
    """Write phantoms as 12-bit radiographs whose tags name an adult's frontal chest."""
    folder.mkdir(exist_ok=True)
    paths = []
    for seed in range(count):
        image = generate_phantom(seed, lesion=bool(seed % 2), size_px=(side, side)).image
        stored = np.rint(image * 4095).astype(np.uint16)
        path = folder / f"object-{seed}.dcm"
        paths.append(write_radiograph(make_radiograph(stored, 12), path))
    return paths


if __name__ == "__main__":
    main()
