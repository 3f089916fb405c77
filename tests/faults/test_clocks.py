"""A process whose clock is an hour off: leases live on the database's, so nothing happens."""

import json
import shutil
import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.faults.process import Process
from tests.faults.stack import Stack

LIBRARY = "libfaketimeMT.so.1"
HOUR_S = 3600
# libfaketime 0.9.10 makes clock_nanosleep fail, which is Python's sleep; select it leaves alone.
SLEEP = "import select, time\ntime.sleep = lambda s: select.select((), (), (), s) and None\n"


def faketime_library() -> str:
    """Find what shifts a process's clock."""
    assert shutil.which("faketime"), "faketime is missing: make system, or apt-get install faketime"
    found = list(Path("/usr/lib").glob(f"*/faketime/{LIBRARY}"))
    assert found, f"{LIBRARY} is not where Debian puts it"
    return str(found[0])


def stop(process: Process) -> None:
    """End it; one that has only just started may not have Celery's handlers yet."""
    assert process.terminate() in (0, -signal.SIGTERM)


def shift(process: Process, by_s: int) -> None:
    """Start a process again with its wall clock off by so much; what measures durations is not."""
    stop(process)
    site = process.log.parent / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(SLEEP)
    process.environment |= {
        "PYTHONPATH": str(site),
        "LD_PRELOAD": faketime_library(),
        "FAKETIME": f"{by_s:+d}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    process.start()
    process.wait_ready()
    line = next(line for line in process.told().splitlines() if process.ready_word in line)
    logged = json.loads(line)["timestamp"]
    off_s = (datetime.fromisoformat(logged) - datetime.now(UTC)).total_seconds()
    assert abs(off_s - by_s) < 120, f"its clock is off by {off_s} s, not by {by_s} s"


def set_right(process: Process) -> None:
    """Start it again with the right time."""
    stop(process)
    for name in ("PYTHONPATH", "LD_PRELOAD", "FAKETIME", "FAKETIME_DONT_FAKE_MONOTONIC"):
        del process.environment[name]
    process.start()
    process.wait_ready()


@pytest.mark.faults
def test_a_clock_an_hour_off_in_any_process_delays_nothing_and_loses_nothing() -> None:
    with Stack(FIRSTREAD_LEASE_S="60") as stack:  # no busy machine misses it; an hour does
        sendings = []
        for process in (*stack.listeners, *stack.workers, stack.beat):
            for by_s in (HOUR_S, -HOUR_S):
                shift(process, by_s)
                sending = stack.send(at_least=100, associations=4)
                sending.finish()
                assert sending.acknowledged == set(sending.objects.made), str(sending)
                stack.drain(180)
                stack.more_faults[f"clock of {process.name} off by {by_s:+d} s"] += 1
                set_right(process)
                sendings.append(sending)
        assert stack.losses() == 0, "a lease ended for the sake of a clock"
        stack.tally("clock an hour off", *sendings).check()
