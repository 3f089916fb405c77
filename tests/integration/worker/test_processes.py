"""The processes of ``firstread work`` and ``firstread beat``, started, killed and told to stop."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis
from pydantic import SecretStr

from common.queue import make_celery, ring
from common.settings import Settings
from common.states import AnalysisState
from tests.conftest import REPOSITORY
from tests.e2e.running import free_port
from tests.integration.worker.conftest import Ledger
from tests.own_broker import Broker, running_broker

WORK = (
    "from common.settings import get_settings; from worker.service import work; "
    "from tests.worker_parts import load_slow_echo, examine_text; "
    "raise SystemExit(work(get_settings(), load=load_slow_echo, examine=examine_text))"
)
BEAT = (
    "import sys; from common.settings import get_settings; from worker.service import beat; "
    "status = beat(get_settings()); "
    "raise SystemExit(9 if {'torch', 'cv2', 'model'} & set(sys.modules) else status)"
)
WORK_ON_A_BREAKING_DEVICE = WORK.replace("load_slow_echo", "load_breaking")
Process = subprocess.Popen[bytes]
Start = Callable[[str], Process]


@pytest.fixture
def own_broker() -> Iterator[Broker]:
    with running_broker() as broker:
        yield broker


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    update: dict[str, object] = {
        "lease_s": 1.5,
        "upkeep_interval_s": 0.5,
        "max_losses": 10,
        "max_batch": 2,
    }
    if "own_broker" in request.fixturenames:
        broker: Broker = request.getfixturevalue("own_broker")
        update["broker_url"] = SecretStr(f"unix://{broker.folder}/redis.sock")
    return settings.model_copy(update=update)


@pytest.fixture
def start(settings: Settings, tmp_path: Path) -> Iterator[Start]:
    """Start a process of ours with these settings in its environment."""
    assert settings.database_url is not None
    assert settings.broker_url is not None
    environment = {
        "FIRSTREAD_HOME": str(settings.home),
        "FIRSTREAD_DATABASE_URL": settings.database_url.get_secret_value(),
        "FIRSTREAD_BROKER_URL": settings.broker_url.get_secret_value(),
    } | {
        f"FIRSTREAD_{name.upper()}": str(getattr(settings, name))
        for name in (
            "lease_s",
            "upkeep_interval_s",
            "max_losses",
            "max_batch",
            "worker_threads",
            "decode_processes",
        )
    }
    started: list[Process] = []

    def start(code: str) -> Process:
        log = (tmp_path / f"process-{len(started)}.log").open("wb")
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=REPOSITORY,
            env=os.environ | environment,
            stdout=log,
            stderr=log,
        )
        log.close()
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def states(ledger: Ledger) -> Counter[AnalysisState]:
    return Counter(row.state for row in ledger.rows())


def wait_until(condition: Callable[[], bool], within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def ring_for(settings: Settings, analysis_ids: list[int]) -> None:
    app = make_celery(settings.broker_address())
    assert ring(app, analysis_ids[0], times=len(analysis_ids))
    app.close()


def test_a_worker_killed_in_the_middle_loses_nothing_and_does_nothing_twice(
    ledger: Ledger, settings: Settings, start: Start
) -> None:
    ids = ledger.queue(*[f"score {number / 10}" for number in range(30)])
    ring_for(settings, ids)
    beat, first = start(BEAT), start(WORK)
    wait_until(lambda: states(ledger)[AnalysisState.DONE] >= 8)
    first.kill()
    first.wait()
    at_work = states(ledger)[AnalysisState.RUNNING]
    assert at_work > 0
    start(WORK)
    wait_until(lambda: states(ledger)[AnalysisState.DONE] == 30)
    rows = ledger.rows()
    assert sum(row.losses for row in rows) == at_work
    assert all(row.attempt == 1 + row.losses for row in rows)
    assert sum(row.late_results + row.failures for row in rows) == 0
    assert [row.score for row in rows] == pytest.approx([n / 10 for n in range(30)], abs=1e-6)
    beat.terminate()
    assert beat.wait(20) == 0


def test_a_worker_told_to_stop_finishes_what_is_in_flight(
    ledger: Ledger, settings: Settings, start: Start
) -> None:
    ids = ledger.queue(*[f"score {number / 10}" for number in range(30)])
    ring_for(settings, ids)
    worker = start(WORK)
    wait_until(lambda: states(ledger)[AnalysisState.DONE] >= 4)
    worker.terminate()
    assert worker.wait(20) == 0
    left = states(ledger)
    assert left[AnalysisState.RUNNING] == 0
    assert left[AnalysisState.QUEUED] > 0
    assert left[AnalysisState.QUEUED] + left[AnalysisState.DONE] == 30
    assert all(row.losses == 0 for row in ledger.rows())


def test_lost_messages_delay_work_and_lose_none(
    ledger: Ledger, settings: Settings, start: Start, broker_url: str
) -> None:
    start(WORK)
    ids = ledger.queue("score 1", "score 1", "score 1")
    ring_for(settings, ids)
    with redis.Redis.from_url(broker_url) as client:
        client.flushall()
    start(BEAT)
    wait_until(lambda: states(ledger)[AnalysisState.DONE] == 3)


def test_an_interrupt_from_the_terminal_is_a_warm_shutdown_too(
    ledger: Ledger, settings: Settings, start: Start
) -> None:
    ids = ledger.queue("score 1")
    ring_for(settings, ids)
    worker, beat = start(WORK), start(BEAT)
    wait_until(lambda: states(ledger)[AnalysisState.DONE] == 1)
    for process in (worker, beat):
        process.send_signal(signal.SIGINT)
    assert [process.wait(20) for process in (worker, beat)] == [0, 0]


def test_a_worker_and_beat_go_on_when_the_broker_was_away(
    ledger: Ledger, settings: Settings, start: Start, own_broker: Broker
) -> None:
    start(WORK)
    start(BEAT)
    first = ledger.queue("score 1")
    wait_until(lambda: ledger.row(first[0]).state is AnalysisState.DONE)
    own_broker.kill()
    second = ledger.queue("score 1")
    time.sleep(2)
    own_broker.start()
    wait_until(lambda: ledger.row(second[0]).state is AnalysisState.DONE)


def test_a_worker_whose_device_is_lost_gives_way_and_blames_no_image(
    ledger: Ledger, settings: Settings, start: Start
) -> None:
    ids = ledger.queue("score 1", "score 1", "score 1")
    ring_for(settings, ids)
    worker = start(WORK_ON_A_BREAKING_DEVICE)
    assert worker.wait(60) == 1
    assert all(row.failures == 0 for row in ledger.rows())
    start(BEAT)
    start(WORK)
    wait_until(lambda: states(ledger)[AnalysisState.DONE] == 3)


@pytest.mark.parametrize("service", ["work", "beat", "listen"])
@pytest.mark.parametrize("after_s", [0.0, 0.4, 1.5, 3.0])
def test_a_service_that_is_told_to_stop_while_it_starts_ends_well_and_leaves_nobody(
    settings: Settings, tmp_path: Path, service: str, after_s: float
) -> None:
    environment = {
        "FIRSTREAD_HOME": str(settings.home),
        "FIRSTREAD_DATABASE_URL": settings.database_address(),
        "FIRSTREAD_BROKER_URL": settings.broker_address(),
        "FIRSTREAD_DICOM_PORT": str(free_port()),
        "FIRSTREAD_DECODE_PROCESSES": "2",
    }
    with (tmp_path / "log").open("wb") as log:
        process = psutil.Popen(
            [sys.executable, "-m", "firstread", service],
            cwd=REPOSITORY,
            env=os.environ | environment,
            stdout=log,
            stderr=log,
        )
    status = Path(f"/proc/{process.pid}/status")
    wait_until(lambda: heeds_sigterm(status.read_text()))
    time.sleep(after_s)
    children = process.children(recursive=True)
    process.send_signal(signal.SIGTERM)
    assert process.wait(45) == 0, (tmp_path / "log").read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()
    _, alive = psutil.wait_procs(children, 10)
    assert alive == []


def heeds_sigterm(status: str) -> bool:
    """Read from the kernel whether a process has a handler of its own for the signal."""
    (caught,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)
