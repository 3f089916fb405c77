"""Measure the whole stack's latency: python -m bench.latency

From an object's registration, which follows its last byte, to its result committed, and each hop on
the way, while uncompressed 12-bit radiographs arrive, one study a second, an association each. They
are phantoms without the simulator's tag, so that the shipped model for radiographs takes them.
Starts a stack of its own (``firstread up`` in a
temporary FIRSTREAD_HOME, on free ports), or uses the one that runs: --running. Aim: p95 under 2 s
at one study a second on a CPU.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from common.database import make_engine, make_sessions
from common.settings import Settings, get_settings
from common.states import AnalysisState
from common.tables import Analysis
from model.phantoms import generate_phantom
from tests.radiographs import make_radiograph

HOPS = ("received_at", "queued_at", "claimed_at", "decoded_at", "predicted_at", "finished_at")
IN_WORK = (AnalysisState.QUEUED, AnalysisState.RUNNING)
FIRSTREAD = [sys.executable, "-m", "firstread"]


def main() -> None:
    """Send, wait, and print the table of hops."""
    parser = argparse.ArgumentParser(description="Latency of the whole stack")
    parser.add_argument("--rate", type=float, default=1.0, help="studies a second")
    parser.add_argument("--count", type=int, default=60, help="studies")
    parser.add_argument("--running", action="store_true", help="use the stack that runs already")
    parser.add_argument("--side", type=int, default=2048, help="of the images")
    options = parser.parse_args()
    if options.running:
        measure(get_settings(), options)
        return
    with tempfile.TemporaryDirectory(prefix="firstread-latency-") as home:
        os.environ |= {
            "FIRSTREAD_HOME": home,
            "FIRSTREAD_DICOM_PORT": str(free_port()),
            "FIRSTREAD_DASHBOARD_PORT": str(free_port()),
        }
        stack = subprocess.Popen([*FIRSTREAD, "up"], start_new_session=True)
        try:
            measure(get_settings(), options)
        finally:
            stack.send_signal(signal.SIGINT)
            stack.wait(90)


def measure(settings: Settings, options: argparse.Namespace) -> None:
    """Send studies to the stack and print what became of them."""
    from firstread.services import echo

    objects = make_objects(options.count, options.side)
    deadline = time.monotonic() + 300
    log = settings.home / "logs" / "worker.log"
    while not (_says(log, "worker_started") and echo(settings)):
        if time.monotonic() > deadline:
            raise SystemExit("the stack did not start within five minutes")
        time.sleep(0.5)
    engine = make_engine(settings.database_address())
    sessions = make_sessions(engine)
    with sessions() as session:
        last_id = session.scalar(select(func.max(Analysis.id))) or 0
    send(settings, objects, options.rate)
    rows = finished_rows(sessions, last_id, within_s=120)
    engine.dispose()
    states = sorted({str(row.state) for row in rows})
    done = [row for row in rows if row.state is AnalysisState.DONE]
    print(f"{len(rows)} objects of {options.side} px: {', '.join(states)}")
    print(f"{options.rate:g} studies a second")
    print(f"{'hop':34} {'p50':>8} {'p95':>8}  ms")
    for start, end in (*pairwise(HOPS), (HOPS[0], HOPS[-1])):
        spans = [1000 * (getattr(r, end) - getattr(r, start)).total_seconds() for r in done]
        p50, p95 = np.percentile(spans, (50, 95))
        print(f"{start + ' -> ' + end:34} {p50:8.0f} {p95:8.0f}")


def make_objects(count: int, side: int) -> list[Dataset]:
    """Make radiographs of adults, a study each; few images, but no two objects alike."""
    stored = [
        np.rint(generate_phantom(seed, lesion=bool(seed % 2), size_px=(side, side)).image * 4095)
        for seed in range(4)
    ]
    objects = []
    for number in range(count):
        dataset = make_radiograph(stored[number % 4].astype(np.uint16), 12)
        dataset.PatientID = f"LATENCY{number}"
        dataset.StudyDate = f"{datetime.now(UTC):%Y%m%d}"
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        objects.append(dataset)
    return objects


def send(settings: Settings, objects: list[Dataset], rate: float) -> None:
    """Send each object at its time, on an association of its own."""
    started = time.monotonic()
    for number, dataset in enumerate(objects):
        time.sleep(max(0.0, started + number / rate - time.monotonic()))
        ae = AE(ae_title="LATENCY")
        ae.add_requested_context(dataset.SOPClassUID, ExplicitVRLittleEndian)
        association = ae.associate(
            "127.0.0.1", settings.dicom_port, ae_title=settings.ae_title, max_pdu=131072
        )
        status = association.send_c_store(dataset).Status
        association.release()
        if status != 0:
            raise SystemExit(f"refused with status {status:#06x}")


def finished_rows(sessions: sessionmaker[Session], last_id: int, within_s: float) -> list[Analysis]:
    """Wait until nothing is in work, then give the rows after this id."""
    deadline = time.monotonic() + within_s
    while True:
        with sessions() as session:
            rows = list(session.scalars(select(Analysis).where(Analysis.id > last_id)))
        if not any(row.state in IN_WORK for row in rows):
            return rows
        if time.monotonic() > deadline:
            raise SystemExit("work is left after two minutes")
        time.sleep(0.5)


def free_port() -> int:
    """Ask the system for a port that nobody uses."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def _says(log: Path, event: str) -> bool:
    return log.is_file() and event in log.read_text(errors="replace")


if __name__ == "__main__":
    main()
