"""Compare two workers with one: python -m bench.scale

Each worker is a host of its own (a network namespace: as root) with a device that takes 100 ms for
a batch and no CPU; Postgres, Redis, listener and scanner are hosts too. Everything is received
while the workers stand still; the rate is that of the middle eight tenths of the results, by the
database's clock, so that neither start nor end counts. Aim: 1.8.
"""

import argparse
import os
import statistics
import sys

from sqlalchemy import select

from common.logs import configure_logs
from common.states import AnalysisState
from common.tables import Analysis
from tests.faults.cluster import Cluster

BATCH = 4
DEVICE_S = 0.1  # of load_bound
AIM = 1.8


def main() -> int:
    """Measure in turns and print the ratio of the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # pyright: ignore
    parser.add_argument("--images", type=int, default=240, help="for each worker")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("bench.scale needs root for its network namespaces: nothing was measured")
        return 0
    configure_logs("bench", "error")
    print(f"device: {DEVICE_S * 1000:.0f} ms a batch of {BATCH}: {BATCH / DEVICE_S:.0f} images/s")
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(options.rounds):
        for workers in (1, 2):
            rates[workers].append(measure(workers, options.images * workers))
            print(f"  {workers} worker(s): {rates[workers][-1]:6.1f} images/s", flush=True)
    ratio = statistics.median(rates[2]) / statistics.median(rates[1])
    print(f"two workers to one: {ratio:.2f} (medians of {options.rounds}; aim {AIM})")
    return 0


def measure(workers: int, images: int) -> float:
    """Give the images a second of so many workers."""
    with Cluster(
        load="load_bound",
        beat_on="listener2",
        max_batch=str(BATCH),
        worker_threads="12",
        batch_wait_ms="50",
        upkeep_interval_s="1",
        lease_s="20",
    ) as site:
        site.listen("listener1")
        for host in ("worker1", "worker2")[:workers]:
            site.work(host).suspend()  # all of them wait until everything is there
        sending = site.send_to("listener1", at_least=images, per_association=30)
        sending.finish(200)
        for worker in site.workers:
            worker.resume()
        site.drain(200)
        with site.sessions() as session:
            rows = session.scalars(select(Analysis).where(Analysis.state == AnalysisState.DONE))
            finished = sorted(row.finished_at for row in rows if row.finished_at is not None)
    assert len(finished) == images, len(finished)
    first, last = images // 10, images - images // 10 - 1
    return (last - first) / (finished[last] - finished[first]).total_seconds()


if __name__ == "__main__":
    sys.exit(main())
