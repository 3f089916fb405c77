"""How fast a peer may send: what is over its rate waits, unread, and nothing is refused."""

import time
from collections.abc import Callable
from threading import Lock

_BURST_S = 1.0  # what a peer that was silent may send at once, in seconds of its rate
_STEP_S = 0.2


class Pace:
    """The rate that all associations of one peer share in this process. Safe in many threads."""

    def __init__(self, objects_per_s: float | None, bytes_per_s: float | None) -> None:
        self._objects = None if objects_per_s is None else _Rate(objects_per_s)
        self._bytes = None if bytes_per_s is None else _Rate(bytes_per_s)

    def begin_object(self, is_over: Callable[[], bool]) -> float:
        """Wait until the peer may send another object. Returns seconds waited."""
        return 0.0 if self._objects is None else _wait(self._objects.take(1), is_over)

    def take(self, count: int, is_over: Callable[[], bool]) -> float:
        """Wait until the peer may have sent so many bytes. Returns seconds waited."""
        return 0.0 if self._bytes is None else _wait(self._bytes.take(count), is_over)


class _Rate:
    """Turns given out one behind another, each as long as what was taken."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._lock = Lock()
        self._next_at = time.monotonic() - _BURST_S

    def take(self, amount: float) -> float:
        """Take an amount. Returns seconds until its turn; 0 if that is now."""
        now = time.monotonic()
        with self._lock:
            turn = max(self._next_at, now - max(_BURST_S, 1 / self._per_s))
            self._next_at = turn + amount / self._per_s
        return max(0.0, turn - now)


def _wait(seconds: float, is_over: Callable[[], bool]) -> float:
    """Wait in steps, so that a listener that stops is not held up."""
    began = time.monotonic()
    while (left := began + seconds - time.monotonic()) > 0 and not is_over():
        time.sleep(min(left, _STEP_S))
    return time.monotonic() - began
