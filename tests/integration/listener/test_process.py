"""The listener as a process of its own, with DCMTK's senders."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from pynetdicom import evt
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from common.queue import make_celery, waiting_rings
from common.settings import Settings
from common.tables import Instance
from tests.integration.listener.conftest import association, free_port, radiograph, send, send_one
from tests.radiographs import write_radiograph

SERVE = "from common.settings import get_settings as s; from dicom_listener.service import serve; "
SERVE += "serve(s())"
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def served(settings: Settings) -> Settings:
    """Give settings with a port of their own."""
    return settings.model_copy(update={"dicom_port": free_port(), "archive_reserve_bytes": 0})


@pytest.fixture
def start(served: Settings) -> Iterator[Start]:
    """Start listener processes, which end with the test."""
    with ExitStack() as running:

        def start(**changes: str) -> subprocess.Popen[str]:
            return running.enter_context(serving(served, **changes))

        yield start


@contextmanager
def serving(settings: Settings, **changes: str) -> Iterator[subprocess.Popen[str]]:
    """Run a listener and wait until it listens."""
    environment = {
        **os.environ,
        "FIRSTREAD_HOME": str(settings.home),
        "FIRSTREAD_DATABASE_URL": settings.database_address(),
        "FIRSTREAD_BROKER_URL": settings.broker_address(),
        "FIRSTREAD_DICOM_PORT": str(settings.dicom_port),
        "FIRSTREAD_ARCHIVE_RESERVE_BYTES": "0",
        **changes,
    }
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "listener_started" in line:
                break
        yield process
    finally:
        process.kill()
        process.communicate()


def test_sigterm_ends_the_listener_and_its_log_names_no_patient(
    served: Settings, start: Start
) -> None:
    process = start(FIRSTREAD_LOG_LEVEL="debug")
    named = radiograph(PatientName="SECRET^NAME", PatientID="SECRETID", PatientBirthDate="19611213")
    conflict = radiograph(
        PatientName="SECRET^NAME", PatientID="SECRETID", SOPInstanceUID=named.SOPInstanceUID
    )
    assert send(served, named, conflict) == [0x0000, 0xC001]
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "instance_stored" in log
    assert "instance_refused" in log
    assert "listener_stopped" in log
    for secret in ("SECRET", "NAME^", "19611213"):
        assert secret not in log
    assert not list((served.archive_path / "incoming").iterdir())


def test_an_idle_association_ends_with_the_listener(served: Settings, start: Start) -> None:
    process = start()
    dataset = radiograph()
    with association(served, {dataset.SOPClassUID: ["1.2.840.10008.1.2.1"]}) as opened:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode == 0
        time.sleep(0.2)
        assert opened.is_aborted


def test_an_object_under_way_ends_before_the_listener_does(served: Settings, start: Start) -> None:
    process = start()
    dataset = radiograph()
    dataset.PixelData = bytes(1_000_000)
    sent_bytes = 0

    def slow_down(event: evt.Event) -> None:
        nonlocal sent_bytes
        if sent_bytes == 0:
            process.send_signal(signal.SIGTERM)
        sent_bytes += len(event.data)
        time.sleep(0.05)

    with association(served, {dataset.SOPClassUID: ["1.2.840.10008.1.2.1"]}) as opened:
        opened.bind(evt.EVT_DATA_SENT, slow_down)
        assert send_one(opened, dataset).Status == 0
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert sent_bytes > 1_000_000


def test_a_killed_listener_loses_nothing_that_it_acknowledged(
    served: Settings, start: Start, sessions: sessionmaker[Session]
) -> None:
    first = start()
    stored = [radiograph() for _ in range(3)]
    assert send(served, *stored) == [0, 0, 0]
    left = served.archive_path / "incoming" / f"{first.pid}-dead"
    first.kill()
    first.wait()
    left.mkdir()
    (left / "half.dcm").write_bytes(b"half an object")
    start()
    assert not left.exists()
    assert send(served, *stored) == [0, 0, 0]
    with sessions() as session:
        assert session.execute(select(func.count()).select_from(Instance)).scalar_one() == 3


def test_each_new_radiograph_rings_once(served: Settings, start: Start) -> None:
    start()
    dataset = radiograph()
    send(served, dataset, dataset, radiograph())
    app = make_celery(served.broker_address())
    deadline = time.monotonic() + 5
    while waiting_rings(app) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert waiting_rings(app) == 2


def test_a_broker_that_is_away_delays_no_answer(served: Settings, start: Start) -> None:
    process = start(FIRSTREAD_BROKER_URL=f"redis://127.0.0.1:{free_port()}/0")
    started = time.monotonic()
    assert send(served, *(radiograph() for _ in range(5))) == [0] * 5
    assert time.monotonic() - started < 5
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.mark.system
def test_dcmtk_echoes_and_stores(
    served: Settings, start: Start, sessions: sessionmaker[Session], tmp_path: Path
) -> None:
    start()
    to = ["-aec", served.ae_title, "127.0.0.1", str(served.dicom_port)]
    subprocess.run(["echoscu", *to], check=True, timeout=30)
    files = [write_radiograph(radiograph(), tmp_path / f"{number}.dcm") for number in range(5)]
    subprocess.run(["storescu", *to, *map(str, files)], check=True, timeout=60)
    with sessions() as session:
        assert session.execute(select(func.count()).select_from(Instance)).scalar_one() == 5
