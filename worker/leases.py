"""Renew the leases of all claims at work, from one thread."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread

from sqlalchemy.orm import Session, sessionmaker

from common.database import storage_errors
from common.errors import StorageUnavailableError
from common.lifecycle import Claim, renew
from common.logs import get_logger

log = get_logger()


class LeaseKeeper:
    """Renew every third of a lease, and tell whoever lost one, so that it stops early.

    While the database is away nothing is told: nobody can take a row from us then, and if
    somebody does when it is back, the fencing token discards our result.
    """

    def __init__(self, sessions: sessionmaker[Session], lease_s: float) -> None:
        self._sessions = sessions
        self._lease_s = lease_s
        self._held: dict[tuple[int, int], tuple[Claim, Event]] = {}
        self._lock = Lock()
        self._stopped = Event()
        self._turned_at = time.monotonic()
        self._thread = Thread(target=self._run, name="leases", daemon=True)
        self._thread.start()

    @contextmanager
    def hold(self, claim: Claim) -> Iterator[Event]:
        """Keep a claim's lease alive; gives an event that is set if it is lost all the same."""
        lost = Event()
        key = (claim.analysis_id, claim.attempt)
        with self._lock:
            self._held[key] = (claim, lost)
        try:
            yield lost
        finally:
            with self._lock:
                del self._held[key]

    def renew_all(self) -> None:
        """Renew what is held now. The thread does this; tests may too."""
        with self._lock:
            held = dict(self._held)
        if not held:
            return
        claims = [claim for claim, _ in held.values()]
        with storage_errors(), self._sessions.begin() as session:
            ours = renew(session, claims, self._lease_s)
        with self._lock:
            lost = [held[key][1] for key in held if key in self._held and key[0] not in ours]
        for event in lost:
            event.set()

    def moves(self) -> bool:
        """Say whether renewing went on within the time of a lease."""
        return time.monotonic() - self._turned_at < self._lease_s

    def stop(self) -> None:
        """Renew no more."""
        self._stopped.set()
        self._thread.join(self._lease_s)

    def _run(self) -> None:
        while not self._stopped.wait(self._lease_s / 3):
            self._turned_at = time.monotonic()
            try:
                self.renew_all()
            except StorageUnavailableError as error:
                log.warning("leases_not_renewed", reason=str(error))
            except Exception:  # the boundary: without this thread every lease would be lost
                log.exception("leases_not_renewed")
