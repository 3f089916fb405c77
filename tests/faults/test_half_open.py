"""Connections that are open on one side alone: a relay stops forwarding and closes nothing.

Its kernel goes on acknowledging, so only who speaks the protocol can notice.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import pytest

from tests.faults.cluster import (
    DICOM_PORT,
    PASSWORD,
    POSTGRES_PORT,
    REDIS_PORT,
    Cluster,
)
from tests.faults.relay import RelayProcess
from tests.faults.sending import Sending
from tests.waiting import eventually

pytestmark = pytest.mark.faults

LISTENER_S = 20.0  # twice its idle time of 8 s, and some
DATABASE_S = 35.0  # a statement's 30 s and 5 s for the server to say so
BROKER_S = 20.0


@dataclass
class Site:
    """A site whose every connection goes through a relay."""

    cluster: Cluster
    dicom: RelayProcess
    postgres: RelayProcess
    redis: RelayProcess

    def send(self) -> Sending:
        """Begin to send through the relay, and wait until it goes well."""
        self.cluster.network.faults.clear()
        sending = self.cluster.send_to("relay", associations=4)
        assert eventually(lambda: len(sending.acknowledged) >= 8, 90), str(sending)
        return sending

    def see_through(self, case: str, sending: Sending) -> None:
        """Let everything come to its end, and count."""
        sending.finish(300)
        assert sending.given_up == []
        assert sending.acknowledged == set(sending.objects.made)
        self.cluster.drain(300)
        sys.stdout.write(f"\n{case}: {sending}\n")
        self.cluster.tally(case, sending).check()
        assert all(one.running and one.starts == 1 for one in self.cluster.services)

    def count(self, fault: str, times: int) -> None:
        """Note what a relay has done."""
        self.cluster.network.faults[fault] += times


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """One listener and one worker that know database and broker by the relay's address alone."""
    with Cluster(beat_on="worker2") as cluster:
        postgres, redis = (
            cluster.relay("database", POSTGRES_PORT),
            cluster.relay("broker", REDIS_PORT),
        )
        at = cluster.network.address
        behind = {
            "database_url": cluster.postgres.url().replace(at("database"), at("relay")),
            "broker_url": f"redis://:{PASSWORD}@{at('relay')}:{REDIS_PORT}/0",
        }
        cluster.listen("listener1", **behind)
        cluster.work("worker1", **behind)
        yield Site(cluster, cluster.relay("listener1", DICOM_PORT), postgres, redis)


def test_half_open_associations_time_out_and_leave_nothing(site: Site) -> None:
    sending = site.send()
    (listener,) = site.cluster.listeners
    assert eventually(lambda: site.dicom.tell("freeze").frozen >= 4, 30, 0.05)
    seen = site.dicom.tell("seen")
    began = time.monotonic()
    assert eventually(lambda: site.dicom.tell("seen").left == seen.frozen, LISTENER_S, 0.1), seen
    took_s = time.monotonic() - began
    site.count("association half-open, closed by the listener", seen.frozen)
    site.dicom.tell("cut")  # the senders' sides
    site.see_through("half-open associations", sending)
    incoming = site.cluster.archive.incoming
    assert eventually(lambda: not list(incoming.glob("*/*")), 30)
    assert eventually(lambda: psutil.Process(listener.pid).num_threads() < 20, 30)
    sys.stdout.write(f"the last was closed after {took_s:.1f} s\n")


def test_a_half_open_line_to_the_database_is_given_up_and_made_anew(site: Site) -> None:
    sending = site.send()
    seen = site.postgres.tell("freeze")
    assert seen.frozen >= 2  # the listener's and the worker's
    site.count("connection to the database half-open", seen.frozen)
    before, began = len(sending.acknowledged), time.monotonic()
    assert eventually(lambda: len(sending.acknowledged) > before + 12, DATABASE_S + 40)
    took_s = time.monotonic() - began
    site.see_through("half-open to the database", sending)
    assert site.postgres.tell("seen").held_bytes > 0
    site.postgres.tell("cut")
    sys.stdout.write(f"acknowledged again after {took_s:.1f} s\n")


def test_a_half_open_line_to_the_broker_is_given_up_and_made_anew(site: Site) -> None:
    sending = site.send()
    seen = site.redis.tell("freeze")
    assert seen.frozen >= 1  # the worker's
    site.count("connection to the broker half-open", seen.frozen)
    began = time.monotonic()
    time.sleep(BROKER_S)
    done, rung_at = site.cluster.done(), time.monotonic()
    assert rung_at > began
    assert eventually(lambda: site.cluster.done() > done, 10), "the worker hears the bell no more"
    site.see_through("half-open to the broker", sending)
    site.redis.tell("cut")


def test_late_packets_lose_nothing(site: Site) -> None:
    sending = site.send()
    relays = (site.dicom, site.postgres, site.redis)
    before = sum(relay.tell("late 0.15").delayed for relay in relays)
    time.sleep(15)
    delayed = sum(relay.tell("open").delayed for relay in relays) - before
    site.count("piece 150 ms late", delayed)
    site.see_through("everything 150 ms late", sending)


def test_connections_that_are_reset_lose_nothing(site: Site) -> None:
    sending = site.send()
    relays = (site.dicom, site.postgres, site.redis)
    before = sum(relay.tell("seen").resets for relay in relays)
    for _ in range(10):
        time.sleep(1)
        for relay in relays:
            relay.tell("cut")
    resets = sum(relay.tell("seen").resets for relay in relays) - before
    site.count("connection reset", resets)
    site.see_through("connections reset", sending)
