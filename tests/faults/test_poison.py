"""Poison in full: thousands of harmed objects and streams, crowds of peers, long random lives."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from common.settings import Settings
from tests.faults.chance import seed_of
from tests.faults.crowds import ASSOCIATIONS, PROBES, Slow, same_uid_at_once, visit
from tests.faults.poison import Target, send_poisoned_objects, send_poisoned_streams
from tests.faults.poisoned_decoding import decode_all, harmed_files
from tests.integration.common.test_lifecycle_machine import run_lives
from tests.worker_parts import make_bundle

pytestmark = pytest.mark.faults
Sessions = sessionmaker[Session]


@pytest.fixture
def target(settings: Settings, tmp_path: Path) -> Iterator[Target]:
    """Give a warm listener process."""
    with Target(settings, tmp_path) as target:
        warm_up(target)
        yield target


def warm_up(target: Target) -> None:
    """Let every thread and connection of the database come to be, then mark the vitals."""
    with ThreadPoolExecutor(8) as threads:
        for sending in [threads.submit(target.send_neighbour) for _ in range(40)]:
            sending.result()
    send_poisoned_objects(target, 200, seed=0)
    target.mark()


@pytest.mark.parametrize(
    ("direct", "count"), [(True, 2000), (False, 500)], ids=["direct", "pynetdicom"]
)
def test_thousands_of_poisoned_objects_and_streams_harm_nobody(
    settings: Settings, sessions: Sessions, tmp_path: Path, direct: bool, count: int
) -> None:
    path = "the direct path" if direct else "pynetdicom's path"
    with Target(settings, tmp_path, direct=direct) as target:
        warm_up(target)
        statuses = send_poisoned_objects(target, count, seed_of(f"objects over {path}"))
        assert statuses.total() == count
        target.check_unharmed()
        ends = send_poisoned_streams(target, count, seed_of(f"streams over {path}"))
        assert ends.total() == count
        vitals = target.check_unharmed()
        target.check_folders(sessions)
        faults = {"mutated objects": count, "mutated streams": count}
        target.tally(f"poison over {path}", sessions, faults).check()
        print(path, dict(statuses), dict(ends), vitals)  # noqa: T201
        if direct:
            accepted = sorted(target.archive.glob("objects/*/*.dcm"))
            bundle = make_bundle(tmp_path / "bundle")
            print("decoded", decode_all(accepted, bundle, tmp_path))  # noqa: T201


def test_thousands_of_harmed_images_cost_the_worker_nothing_but_themselves(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    came_to = decode_all(harmed_files(tmp_path, 2000, seed_of("harmed images")), bundle, tmp_path)
    assert came_to.total() == 2001
    print("harmed images", dict(came_to))  # noqa: T201


@pytest.mark.parametrize(
    ("name", "kinds"), [("bare probes", PROBES), ("broken associations", ASSOCIATIONS)]
)
def test_ten_thousand_visits_leave_memory_flat(
    target: Target, sessions: Sessions, name: str, kinds: tuple
) -> None:
    marks = visit(target, kinds, 10_000, [1000, 4000, 7000, 9_999])
    early, late = marks[0], marks[-1]
    print(name, *marks)  # noqa: T201
    assert late.rss_bytes - early.rss_bytes < 8 << 20
    target.check_unharmed()
    target.tally(f"10,000 {name}", sessions, {name: 10_000}).check()


def test_slow_peers_in_waves_starve_nobody(target: Target, sessions: Sessions) -> None:
    came = 0
    for wave in range(6):
        with Slow(target, 200) as slow:
            for _ in range(40):
                target.send_neighbour()
            slow.wait()
        assert slow.most > 120, "they came one after the other"
        came += slow.connected
        if wave == 0:  # two hundred threads at once cost memory once, and no more with each wave
            target.mark()
    vitals = target.check_unharmed(8 << 20)
    print("slow peers", vitals)  # noqa: T201
    target.tally("slow peers", sessions, {"slow peers": came}).check()


def test_one_uid_at_once_in_many_rounds(target: Target, sessions: Sessions) -> None:
    rounds = same_uid_at_once(target, 60, seed_of("one UID at once"))
    assert len(rounds) == 3, "every kind of round was there"
    target.check_folders(sessions)
    target.tally("one UID from several senders at once", sessions, dict(rounds)).check()


def test_many_long_lives_keep_every_promise_of_the_ledger(
    engine: Engine, sessions: Sessions, settings: Settings
) -> None:
    site = settings.model_copy(update={"ae_priorities": {"CT1": "urgent"}})
    run_lives(engine, sessions, site, examples=100, steps=60)
