"""Measure the whole stack's latency: python -m bench.latency

From the last byte of an object received to its result committed, and each hop on the way, while a
simulated scanner sends one study a second. Starts a stack of its own (``firstread up`` in a
temporary FIRSTREAD_HOME, on free ports), or reads the rows of one that runs: --running. Aim: p95
under 2 s at one study a second on a CPU.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from common.database import make_engine, make_sessions
from common.settings import Settings, get_settings
from common.states import AnalysisState
from common.tables import Analysis

HOPS = ("received_at", "queued_at", "claimed_at", "decoded_at", "predicted_at", "finished_at")
IN_WORK = (AnalysisState.QUEUED, AnalysisState.RUNNING)
FIRSTREAD = [sys.executable, "-m", "firstread"]


def main() -> None:
    """Send, wait, and print the table of hops."""
    parser = argparse.ArgumentParser(description="Latency of the whole stack")
    parser.add_argument("--rate", type=float, default=1.0, help="studies a second")
    parser.add_argument("--count", type=int, default=60, help="studies")
    parser.add_argument("--running", action="store_true", help="use the stack that runs already")
    options = parser.parse_args()
    if options.running:
        measure(get_settings(), options.rate, options.count)
        return
    with tempfile.TemporaryDirectory(prefix="firstread-latency-") as home:
        os.environ |= {
            "FIRSTREAD_HOME": home,
            "FIRSTREAD_DICOM_PORT": str(free_port()),
            "FIRSTREAD_DASHBOARD_PORT": str(free_port()),
        }
        stack = subprocess.Popen([*FIRSTREAD, "up"], start_new_session=True)
        try:
            measure(get_settings(), options.rate, options.count)
        finally:
            stack.send_signal(signal.SIGINT)
            stack.wait(90)


def measure(settings: Settings, rate: float, count: int) -> None:
    """Send so many studies at this rate to the stack and print what became of them."""
    from firstread.services import echo

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
    sending = ["simulate", "--plain", "--rate", f"{rate:g}", "--count", str(count)]
    subprocess.run([*FIRSTREAD, *sending], check=True)
    rows = finished_rows(sessions, last_id, within_s=120)
    engine.dispose()
    states = sorted({str(row.state) for row in rows})
    done = [row for row in rows if row.state is AnalysisState.DONE]
    print(f"{len(rows)} objects at {rate:g} studies/s, states {', '.join(states)}")
    print(f"{'hop':34} {'p50':>8} {'p95':>8}  ms")
    for start, end in (*pairwise(HOPS), (HOPS[0], HOPS[-1])):
        spans = [1000 * (getattr(r, end) - getattr(r, start)).total_seconds() for r in done]
        p50, p95 = np.percentile(spans, (50, 95))
        print(f"{start + ' -> ' + end:34} {p50:8.0f} {p95:8.0f}")


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
