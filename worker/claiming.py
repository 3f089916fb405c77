"""Choose what to work on next, and when not to."""

import os
import socket
import time
from collections.abc import Callable, Collection
from itertools import count

from sqlalchemy.orm import Session, sessionmaker

from common.database import storage_errors
from common.errors import StorageUnavailableError
from common.lifecycle import Claim, claim
from common.logs import get_logger

OLDEST_EVERY = 4  # every fourth claim takes the oldest row, so that backfill moves
PAUSE_S = 5.0

log = get_logger()


def worker_name() -> str:
    """Name this process in the rows that it claims."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Claims:
    """Claim rows for one worker process; its threads share it."""

    def __init__(
        self,
        sessions: sessionmaker[Session],
        claimable: Callable[[], Collection[int]],
        lease_s: float,
    ) -> None:
        self._sessions = sessions
        self._claimable = claimable
        self._lease_s = lease_s
        self._worker = worker_name()
        self._numbers = count(1)
        self._paused_until = 0.0
        self._stopped = False

    def take(self) -> Claim | None:
        """Claim the most urgent row, or the oldest if it is its turn.

        Returns:
            None when there is nothing to do, or now is not the time.
        """
        version_ids = self._claimable()
        if self._stopped or not version_ids or time.monotonic() < self._paused_until:
            return None
        try:
            with storage_errors(), self._sessions.begin() as session:
                return claim(
                    session,
                    worker=self._worker,
                    model_version_ids=version_ids,
                    lease_s=self._lease_s,
                    oldest=next(self._numbers) % OLDEST_EVERY == 0,
                )
        except StorageUnavailableError as error:
            self.pause(str(error))
            return None

    def pause(self, reason: str) -> None:
        """Claim nothing for a while: the database or the archive is away, and rows are many."""
        log.warning("claims_paused", reason=reason, pause_s=PAUSE_S)
        self._paused_until = time.monotonic() + PAUSE_S

    def stop(self) -> None:
        """Claim nothing more."""
        self._stopped = True
