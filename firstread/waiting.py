"""Wait for a condition, bounded, with a pace that neither spins nor dawdles."""

import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")


def wait_until(
    ask: Callable[[], Answer], *, timeout_s: float, pause_s: float = 0.05
) -> Answer | None:
    """Ask until the answer is true; None when the time is up. What ``ask`` raises passes."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() >= deadline:
            return None
        time.sleep(pause_s)
        pause_s = min(0.5, pause_s * 1.3)
