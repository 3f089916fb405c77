"""The ringer: tells the worker of new work without ever delaying a sender's answer."""

import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, Full, Queue
from threading import Thread

from common import metrics
from common.logs import get_logger

_BACKLOG = 1000
_PACE_S = 0.05  # what comes in a burst is rung for at once: each message costs as much as a row
_STOP = None

log = get_logger()


class Ringer:
    """Ring from a thread of its own, with a bounded backlog.

    A ring that finds the backlog full is dropped: the row is committed, so upkeep rings for it.
    """

    def __init__(self, ring: Callable[[int, int], bool], backlog: int = _BACKLOG) -> None:
        """Take what rings: the id of an analysis and how many are waiting, False if unheard."""
        self._ring = ring
        self._waiting: Queue[int | None] = Queue(backlog)
        self._thread = Thread(target=self._run, name="ringer", daemon=True)
        self.dropped = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def ring(self, analysis_id: int) -> None:
        """Have the bell rung soon; never waits."""
        try:
            self._waiting.put_nowait(analysis_id)
        except Full:
            self.dropped += 1
            metrics.RINGS_DROPPED.labels("backlog").inc()

    def stop(self, grace_s: float = 2.0) -> None:
        """Ring what waits, for so long at most."""
        try:
            self._waiting.put(_STOP, timeout=grace_s)
        except Full:
            return
        self._thread.join(grace_s)

    def _run(self) -> None:
        while True:
            waiting = [self._waiting.get()]
            with suppress(Empty):  # what waits behind goes over the same connection
                while waiting[-1] is not _STOP:
                    waiting.append(self._waiting.get_nowait())
            ids = [item for item in waiting if isinstance(item, int)]
            try:
                if ids and not self._ring(ids[0], len(ids)):
                    metrics.RINGS_DROPPED.labels("unheard").inc(len(ids))
            except Exception:  # the boundary: a bell must not end the ringer
                log.exception("bell_broken")
            if len(ids) < len(waiting):
                return
            time.sleep(_PACE_S)
