"""Read the ledger's ages and counts every few seconds, and leave them for Prometheus.

A thread of its own and not a step of upkeep: upkeep hears of its rounds through the broker, and
the age of what waits is never more wanted than when the broker is away.
"""

import time
from threading import Event, Thread
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session, sessionmaker

from common import metrics
from common.database import storage_errors
from common.errors import StorageUnavailableError
from common.lifecycle import NOW
from common.logs import get_logger
from common.states import AnalysisState
from common.tables import Analysis, Study, WorklistItem

EVERY_S = 10.0
COUNTED_AT_MOST = 10_000
BANDS = (0, 1, 2)

# Each state's rows lie in a partial index under the instant that they have been in it since.
_SINCE: dict[AnalysisState, InstrumentedAttribute] = {
    AnalysisState.QUEUED: Analysis.queued_at,
    AnalysisState.RUNNING: Analysis.claimed_at,
    AnalysisState.FAILED: Analysis.finished_at,
}

log = get_logger()


class LedgerWatch:
    """Set ``firstread_ledger_*``; every statement reads the end of an index or a bounded count."""

    def __init__(self, sessions: sessionmaker[Session], every_s: float = EVERY_S) -> None:
        self._sessions = sessions
        self._every_s = every_s
        self._stopped = Event()
        self._thread = Thread(target=self._run, name="ledger", daemon=True)

    def start(self) -> None:
        """Read from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Read no more."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(self._every_s)

    def read(self) -> None:
        """Read once.

        Raises:
            StorageUnavailableError: the database is away; the figures stay, and their time.
        """
        with storage_errors(), self._sessions() as session:
            for state, since in _SINCE.items():
                waiting = Analysis.state == state
                _set_state(session, state.value, select(since).where(waiting), since)
            unsettled = (
                select(Study.last_received_at)
                .join(WorklistItem, WorklistItem.study_id == Study.id)
                .where(~WorklistItem.settled)
            )
            _set_state(session, "unsettled", unsettled, Study.last_received_at)
            for band in BANDS:
                first_due = (
                    select(func.min(WorklistItem.due_at))
                    .where(WorklistItem.listed, WorklistItem.band == band)
                    .scalar_subquery()
                )
                overdue = session.execute(select(func.extract("epoch", NOW - first_due))).scalar()
                metrics.LEDGER_OVERDUE.labels(str(band)).set(overdue or 0)
            last_received = select(func.max(Study.last_received_at)).scalar_subquery()
            last_result = (
                select(Analysis.finished_at)
                .where(Analysis.finished_at.is_not(None), Analysis.state == AnalysisState.DONE)
                .order_by(Analysis.finished_at.desc())
                .limit(1)
                .scalar_subquery()
            )
            received, result = session.execute(
                select(func.extract("epoch", last_received), func.extract("epoch", last_result))
            ).one()
        metrics.LEDGER_RECEIVED.set(received or 0)
        metrics.LEDGER_RESULT.set(result or 0)
        metrics.LEDGER_READ.set(time.time())

    def _run(self) -> None:
        while True:
            try:
                self.read()
            except StorageUnavailableError as error:
                log.warning("ledger_not_read", reason=str(error))
            except Exception:  # the boundary: figures must not end the process
                log.exception("ledger_not_read")
            if self._stopped.wait(self._every_s):
                return


def _set_state(
    session: Session, state: str, rows: Select[Any], since: InstrumentedAttribute
) -> None:
    bounded = rows.limit(COUNTED_AT_MOST).subquery()
    count = session.execute(select(func.count()).select_from(bounded)).scalar_one()
    oldest = rows.order_by(since).limit(1).scalar_subquery()
    age = session.execute(select(func.extract("epoch", NOW - oldest))).scalar()
    metrics.LEDGER_ITEMS.labels(state).set(count)
    metrics.LEDGER_OLDEST.labels(state).set(max(0.0, float(age or 0)))
