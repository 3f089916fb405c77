"""A run of make faults: each case has its time, and a line of the table even where it fails.

Works where FIRSTREAD_FAULT_TABLE names the run's table; the same tests in make test are as others.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from tests.faults.chance import SEED
from tests.faults.tally import TABLE, add_failure
from tests.waiting import stretch

CASE_S = 900.0  # at rest; the longest takes a third of it on two busy cores
FOLDER = Path(__file__).parent
began_at, began_load = time.time(), os.getloadavg()


class CaseTimeoutError(BaseException):
    """A case did not end. Nothing within it may catch this."""


@pytest.fixture(autouse=True)
def _ends_in_time() -> Iterator[None]:
    """End a case that waits for ever, so that the run goes on to the next."""
    if TABLE not in os.environ:
        yield
        return
    within_s = CASE_S * stretch()

    def end(number: int, frame: FrameType | None) -> None:
        raise CaseTimeoutError(f"the case had not ended after {within_s:.0f} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, within_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Give a case that failed its line of the table: it may not have come to count."""
    outcome = yield
    report = outcome.get_result()
    table = os.environ.get(TABLE)
    if table and report.failed and FOLDER in item.path.parents:
        assert call.excinfo is not None
        why = " ".join(call.excinfo.exconly(tryshort=True).split())
        add_failure(Path(table), item.name, f"{report.when}: {why[:200]}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say of the run what its table does not: the seed, how long it took, and under what load."""
    if TABLE not in os.environ:
        return
    took_s = round(time.time() - began_at)
    loads = " to ".join(f"{load:.1f}" for load in (began_load[0], os.getloadavg()[0]))
    counted = {word: len(terminalreporter.stats.get(word, ())) for word in ("passed", "failed")}
    started = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(began_at))
    terminalreporter.write_line(
        f"FAULT_SEED={SEED}; begun {started}, took {took_s // 60} min {took_s % 60} s on "
        f"{len(os.sched_getaffinity(0))} cores, load {loads}; "
        f"cases passed {counted['passed']}, failed {counted['failed']}"
    )
