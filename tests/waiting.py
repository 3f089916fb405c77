"""Wait for what happens in other processes, within bounds."""

import time
from collections.abc import Callable


def eventually(ask: Callable[[], object], within_s: float, pause_s: float = 0.05) -> bool:
    """Ask until the answer is true. False if the time is up."""
    deadline = time.monotonic() + within_s
    while not ask():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
    return True
