"""Backpressure: while work waits too long, routine peers are asked to send again later.

Peers marked urgent are accepted until the disk is down to its reserve; the others are refused
earlier, by the age of the oldest work in the lane of today's studies. Priors wait in a lane of
their own, where waiting is no sign of trouble; so does work whose pipeline has no live model.
"""

from collections.abc import Callable
from threading import Event, Thread

from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from common import metrics
from common.database import storage_errors
from common.errors import StorageUnavailableError
from common.lifecycle import NOW
from common.logs import get_logger
from common.settings import Settings
from common.states import AnalysisState, Lane
from common.tables import Analysis
from dicom_listener.peers import plain_address

LOOK_EVERY_S = 3.0
OPEN_AGAIN_AT = 0.5  # of the limit; between the two it stays as it is

log = get_logger()


class Pressure:
    """Whether routine peers are refused just now. The database is asked by a thread alone."""

    def __init__(
        self, settings: Settings, age_s: Callable[[], float], look_every_s: float = LOOK_EVERY_S
    ) -> None:
        """Take the site's limit and who knows the age of what waits longest, in seconds.

        Args:
            settings: Without ``refuse_when_queue_older_s`` nothing is ever asked or refused.
            age_s: Raises StorageUnavailableError while the database is away.
            look_every_s: Pace of asking.
        """
        self._settings = settings
        self._limit_s = settings.refuse_when_queue_older_s
        self._age_s = age_s
        self._look_every_s = look_every_s
        self._refuses = False
        self._stopped = Event()
        self._thread = Thread(target=self._run, name="pressure", daemon=True)

    def start(self) -> None:
        """Look from now on, where there is a limit."""
        if self._limit_s is not None:
            self.look()
            self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(self._look_every_s)

    def refuses(self, ae_title: str, address: str) -> bool:
        """Say whether an object of this sender is to come again later. Asks nobody."""
        return self._refuses and not is_urgent(ae_title, address, self._settings)

    def look(self) -> None:
        """Ask for the age and decide; while nobody answers, it stays as it is decided."""
        if self._limit_s is None:
            return
        try:
            age_s = self._age_s()
        except StorageUnavailableError as error:
            log.warning("queue_age_unknown", reason=str(error))
            return
        limit_s = self._limit_s * (OPEN_AGAIN_AT if self._refuses else 1.0)
        before, self._refuses = self._refuses, age_s > limit_s
        metrics.PRESSURE.set(self._refuses)
        if self._refuses != before:
            event = "routine_peers_refused" if self._refuses else "routine_peers_accepted"
            log.warning(event, queue_age_s=round(age_s), limit_s=self._limit_s)

    def _run(self) -> None:
        while not self._stopped.wait(self._look_every_s):
            try:
                self.look()
            except Exception:  # the boundary: without this thread it would never open again
                log.exception("queue_age_unknown")


def is_urgent(ae_title: str, address: str, settings: Settings) -> bool:
    """Say whether the first of the site's rules that fits a sender marks it urgent."""
    at = str(plain_address(address))
    fitting = (peer for peer in settings.peers if peer.admits(ae_title.strip(), at))
    peer = next(fitting, None)
    return peer is not None and peer.urgent


def queue_age_s(sessions: sessionmaker[Session]) -> float:
    """Measure how long today's oldest work waits for a worker; 0 if none does.

    Raises:
        StorageUnavailableError: the database is away.
    """
    oldest = (
        select(func.min(Analysis.queued_at))
        .where(
            Analysis.state == AnalysisState.QUEUED,
            Analysis.lane == Lane.CURRENT,
            Analysis.model_version_id.is_not(None),
        )
        .scalar_subquery()
    )
    with storage_errors(), sessions() as session:
        age = session.execute(select(func.extract("epoch", NOW - oldest))).scalar()
    return float(age or 0)
