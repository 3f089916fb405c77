"""Wait for what happens in other processes, within bounds that a busy machine stretches."""

import os
import time
from collections.abc import Callable
from pathlib import Path

MOST = 6.0
_LOOK_S = 0.5


def stretch() -> float:
    """Say how many times longer than at rest things may take now: 1 to MOST.

    As many as want a processor for each that there is, now or over the last minute; from
    FAULT_STRETCH where that is set.
    """
    if told := os.environ.get("FAULT_STRETCH"):
        return float(told)
    minute, _, _, running, *_ = Path("/proc/loadavg").read_text().split()
    wanted = max(float(minute), float(running.partition("/")[0]))
    return min(MOST, max(1.0, wanted / len(os.sched_getaffinity(0))))


class Deadline:
    """So much time of a machine at rest: where more work wants its processors, it passes slower."""

    def __init__(self, within_s: float) -> None:
        self._left_s = within_s
        self._seen = time.monotonic()
        self._slower = stretch()

    def is_over(self) -> bool:
        """Say whether the time is up."""
        now = time.monotonic()
        if now - self._seen > _LOOK_S:  # not at every question: some are asked without a pause
            self._left_s -= (now - self._seen) / self._slower
            self._seen, self._slower = now, stretch()
        return self._left_s - (now - self._seen) / self._slower < 0


def eventually(ask: Callable[[], object], within_s: float, pause_s: float = 0.05) -> bool:
    """Ask until the answer is true. False if the time is up, as ``Deadline`` counts it."""
    deadline = Deadline(within_s)
    while not ask():
        if deadline.is_over():
            return False
        time.sleep(pause_s)
    return True
