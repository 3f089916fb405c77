"""Cut, silenced and slowed links between hosts of their own, while a scanner sends.

One site for all cases: nothing in it is started again, so work resumes by itself or not at all.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager

import psutil
import pytest

from tests.faults.cluster import DICOM_PORT, POSTGRES_PORT, REDIS_PORT, Cluster
from tests.faults.sending import Sending
from tests.waiting import eventually

pytestmark = pytest.mark.faults

FAULT_S = 12.0  # longer than TCP is given to be heard
UNANSWERED_S = 25.0  # long enough that a sender must have been told
POOLED_THREADS = 8  # of a listener: two for each association that ever stood, and some
PAIRS = {
    ("sender", "listener1"): DICOM_PORT,
    ("listener1", "database"): POSTGRES_PORT,
    ("listener1", "broker"): REDIS_PORT,
    ("worker1", "database"): POSTGRES_PORT,
    ("worker1", "broker"): REDIS_PORT,
}


@pytest.fixture(scope="module")
def site() -> Iterator[Cluster]:
    """One listener and one worker, each on a host, as are database, broker and scanner."""
    with Cluster() as cluster:
        cluster.listen("listener1")
        cluster.work("worker1")
        yield cluster


def endure(
    site: Cluster, case: str, fault: AbstractContextManager[object], lasting_s: float = FAULT_S
) -> Sending:
    """Send, let the fault come and go in the middle, and see everything through to its end."""
    site.network.faults.clear()
    (listener,) = site.listeners
    sending = site.send_to("listener1")
    assert eventually(lambda: len(sending.acknowledged) >= 8, 90), str(sending)
    with fault:
        time.sleep(lasting_s)
    over_at, before = time.monotonic(), len(sending.acknowledged)
    assert eventually(lambda: len(sending.acknowledged) > before, 90), str(sending)
    resumed_s = time.monotonic() - over_at
    sending.finish(240)
    assert sending.given_up == []
    assert sending.acknowledged == set(sending.objects.made)
    site.drain(240)
    sys.stdout.write(f"\n{case}: acknowledged again after {resumed_s:.1f} s; {sending}\n")
    site.tally(case, sending).check()
    assert all(service.running and service.starts == 1 for service in site.services)
    assert eventually(lambda: not left_behind(site), 30), left_behind(site)
    process, most = psutil.Process(listener.pid), site.idle_threads + POOLED_THREADS
    assert eventually(lambda: process.num_threads() <= most, 30), process.num_threads()
    return sending


def left_behind(site: Cluster) -> list[str]:
    """List half-received objects that nobody receives any more."""
    return [str(path) for path in site.archive.incoming.glob("*/*")]


@pytest.mark.parametrize("host", ["sender", "listener1", "database", "broker", "worker1"])
def test_a_pulled_cable_loses_nothing(site: Cluster, host: str) -> None:
    endure(site, f"cable of {host} pulled", site.network.cable_out(host))


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_answers_that_vanish_lose_nothing(site: Cluster, pair: tuple[str, str]) -> None:
    fault = site.network.answers_vanish(*pair, PAIRS[pair])
    endure(site, f"{pair[0]} to {pair[1]}: answers vanish", fault)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_dropped_packets_lose_nothing(site: Cluster, pair: tuple[str, str]) -> None:
    is_ledger = pair == ("listener1", "database")
    fault = site.network.packets_dropped(*pair, PAIRS[pair])
    sending = endure(
        site,
        f"{pair[0]} to {pair[1]}: packets dropped",
        fault,
        UNANSWERED_S if is_ledger else FAULT_S,
    )
    if is_ledger:  # a sender is told in time to come back later
        assert any("OutOfResources" in answer for answer in sending.answers), sending.answers


@pytest.mark.parametrize(
    ("host", "rate"),
    [
        ("sender", "512kbit"),
        ("listener1", "64kbit"),
        ("worker1", "64kbit"),
        ("database", "128kbit"),
        ("broker", "32kbit"),
    ],
)
def test_a_slow_line_loses_nothing(site: Cluster, host: str, rate: str) -> None:
    endure(site, f"{host} slowed to {rate}", site.network.slowed(host, rate), 8.0)


def test_the_database_soon_takes_back_what_a_vanished_host_held(site: Cluster) -> None:
    holding = (
        "import sys, time; from common.database import make_engine; from sqlalchemy import text; "
        "c = make_engine(sys.argv[1]).connect(); "
        "c.execute(text('SELECT pg_advisory_lock(77)')); c.commit(); "
        "print('held', flush=True); time.sleep(120)"
    )
    ask = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77"
    with site.run_on("listener2", holding, site.postgres.url()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert site.ask(ask) == 1
        with site.network.cable_out("listener2"):
            began = time.monotonic()
            assert eventually(lambda: site.ask(ask) == 0, 40), "a vanished host keeps its lock"
            assert process.poll() is None
    sys.stdout.write(f"\nlock of a vanished host free after {time.monotonic() - began:.1f} s\n")
