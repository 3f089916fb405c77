"""What the command line asks and does on the ledger, through the same functions as the page."""

import getpass
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from common.database import make_engine, make_sessions, storage_errors
from common.errors import ConfigurationError
from common.queue import make_celery, ring
from common.reading import audit, mark_read
from common.rerunning import reprocess, retry
from common.schema import require_schema
from common.settings import Settings
from common.tables import Analysis, AnalysisState, Instance, Series, Study


class Ledger:
    """A connection for one command; every change is audited under the account that runs it."""

    def __init__(self, settings: Settings, *, statement_timeout_s: float = 30) -> None:
        self.settings = settings
        self.actor = getpass.getuser()[:64]
        self.engine = make_engine(
            settings.database_address(), pool_size=1, statement_timeout_s=statement_timeout_s
        )
        self.sessions = make_sessions(self.engine)

    def __enter__(self) -> Self:
        try:
            require_schema(self.engine)
        except Exception:
            self.engine.dispose()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.engine.dispose()

    def worklist(self, limit: int) -> list[dict[str, Any]]:
        """Give the ranked list, plain values a study."""
        from dashboard.queries import worklist_page

        with storage_errors(), self.sessions() as session:
            page = worklist_page(session, size=limit)
        return [
            {
                "study_instance_uid": row.study_instance_uid,
                "accession_number": row.accession_number,
                "band": row.band,
                "due_at": row.due_at.isoformat(),
                "state": row.state.value,
                "outcome": row.outcome.value,
                "probability": row.probability,
                "reason": row.reason,
            }
            for row in page.rows
        ]

    def status(self) -> dict[str, Any]:
        """Count studies and analyses by state; say what waits longest and how fast work goes."""
        from dashboard.status import read_status

        with storage_errors(), self.sessions() as session:
            counts = read_status(session)
        unread, queued = counts.oldest_unread_at, counts.oldest_queued_at
        return {
            "as_of": counts.as_of.isoformat(),
            "studies": counts.studies,
            "analyses": counts.analyses,
            "outcomes": counts.outcomes,
            "oldest_waiting": {
                "unread_since": unread.isoformat() if unread else None,
                "queued_since": queued.isoformat() if queued else None,
            },
            "rates": {
                "studies_received_last_hour": counts.received_last_hour,
                "analyses_done_last_hour": counts.analysed_last_hour,
                "analyses_done_last_minute": counts.analysed_last_minute,
            },
        }

    def close(self, *, accession: str, study_instance_uid: str) -> list[str]:
        """Take studies off the list as reported elsewhere. Returns their UIDs."""
        with storage_errors(), self.sessions.begin() as session:
            studies = _find(session, accession, study_instance_uid)
            for study in studies:
                seen = session.execute(
                    select(func.count())
                    .select_from(Instance)
                    .join(Series)
                    .where(Series.study_id == study.id)
                ).scalar_one()
                mark_read(
                    session,
                    study,
                    self.actor,
                    self.settings,
                    instances_seen=seen,
                    reported_elsewhere=True,
                )
            return [study.study_instance_uid for study in studies]

    def retry(self, *, accession: str, study_instance_uid: str, everything: bool) -> int:
        """Queue failed analyses again. Returns how many."""
        with storage_errors(), self.sessions.begin() as session:
            wanted = select(Analysis.id).where(Analysis.state == AnalysisState.FAILED)
            if not everything:
                studies = _find(session, accession, study_instance_uid)
                wanted = wanted.where(Analysis.study_id.in_([study.id for study in studies]))
            queued = retry(session, session.scalars(wanted).all(), self.settings)
            audit(session, self.actor, "analyses_retried", analysis_ids=queued)
        self._ring(queued)
        return len(queued)

    def reprocess(self, *, accession: str, study_instance_uid: str) -> int:
        """Queue a new run of studies' analyses. Returns how many."""
        queued: list[int] = []
        with storage_errors(), self.sessions.begin() as session:
            for study in _find(session, accession, study_instance_uid):
                made = reprocess(session, study.id, self.settings)
                audit(
                    session,
                    self.actor,
                    "study_reprocessed",
                    study.study_instance_uid,
                    analysis_ids=made,
                )
                queued += made
        self._ring(queued)
        return len(queued)

    def _ring(self, analysis_ids: Sequence[int]) -> None:
        if analysis_ids:  # unheard, upkeep rings again within seconds
            celery = make_celery(self.settings.broker_address())
            ring(celery, analysis_ids[0], times=min(len(analysis_ids), 100))


def _find(session: Session, accession: str, study_instance_uid: str) -> Sequence[Study]:
    if bool(accession) == bool(study_instance_uid):
        raise ConfigurationError("Name the study: either --accession or --study")
    named = (
        Study.accession_number == accession
        if accession
        else Study.study_instance_uid == study_instance_uid
    )
    found = session.scalars(select(Study).where(named).order_by(Study.study_instance_uid)).all()
    if not found:
        raise ConfigurationError(f"No study {accession or study_instance_uid} was received")
    if len({study.patient_id for study in found}) > 1:
        raise ConfigurationError(
            f"Accession number {accession} belongs to several patients; name one study with "
            "--study: " + ", ".join(study.study_instance_uid for study in found)
        )
    return found
