"""Send audit events and the chains' heads on: later where it fails, at least once, in order.

How far each chain was sent stands in ``audit_chain``. Numbers within a chain follow its commits,
so nothing can turn up behind the mark.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from threading import Event
from uuid import UUID

from sqlalchemy import Engine, Row, func, select, update
from sqlalchemy.orm import Session, sessionmaker

from common.audit.messages import Source, audit_message
from common.audit.sealing import HEAD
from common.audit.syslog import Line, SyslogServer
from common.database import only_one, storage_errors
from common.errors import StorageUnavailableError
from common.logs import get_logger
from common.settings import Settings
from common.tables import AuditChain, AuditEvent, Patient, Study

DELIVERY_LOCK = 7265010
BATCH = 500
HEADS_EVERY_S = 60.0
MESSAGES_EVERY_S = 5.0
LONGEST_PAUSE_S = 300.0

log = get_logger()


class Delivery:
    """Beat's second thread: nothing else waits for a syslog server."""

    def __init__(self, engine: Engine, sessions: sessionmaker[Session], settings: Settings) -> None:
        self._engine = engine
        self._sessions = sessions
        self._settings = settings
        self._server = SyslogServer(settings) if settings.audit_syslog else None

    def run(
        self, stopped: Event, *, every_s: float = MESSAGES_EVERY_S, heads_s: float = HEADS_EVERY_S
    ) -> None:
        """Deliver until stopped; after a failure ever less often."""
        pause_s, since_heads_s = every_s, heads_s
        while not stopped.wait(pause_s):
            since_heads_s += pause_s
            due = since_heads_s >= heads_s
            try:
                delivered = self.deliver_once(heads=due)
            except (StorageUnavailableError, OSError) as error:
                pause_s = min(LONGEST_PAUSE_S, pause_s * 2)
                log.warning("audit_not_delivered", reason=str(error), again_in_s=pause_s)
                continue
            except Exception:  # the boundary: the work goes on without its audit server
                pause_s = LONGEST_PAUSE_S
                log.exception("audit_not_delivered")
                continue
            pause_s = every_s
            if delivered is not None and due:
                since_heads_s = 0.0

    def deliver_once(self, *, heads: bool = True) -> int | None:
        """Send what waits. Returns the messages sent; None while another process sends.

        Raises:
            OSError: the syslog server does not take them; they wait.
            StorageUnavailableError: the database is away.
        """
        if self._server is None and not heads:
            return 0
        with storage_errors(), only_one(self._engine, DELIVERY_LOCK) as is_ours:
            if not is_ours:
                return None
            sent = self._send_events() if self._server is not None else 0
            if heads:
                self._tell_heads()
            return sent

    def _send_events(self) -> int:
        sent = 0
        for chain_id in self._behind(AuditChain.sent_sequence):
            while batch := self._next_events(chain_id):
                self._deliver([_line(row, self._settings) for row in batch])
                self._mark(chain_id, sent_sequence=batch[-1].AuditEvent.sequence)
                sent += len(batch)
        return sent

    def _tell_heads(self) -> None:
        """Log each new head, and send it: then nobody can cut a chain's end off unnoticed."""
        for chain_id in self._behind(AuditChain.head_sequence):
            with self._sessions() as session:
                head = session.execute(
                    select(AuditEvent.sequence, AuditEvent.hmac)
                    .where(AuditEvent.chain_id == chain_id)
                    .order_by(AuditEvent.sequence.desc())
                    .limit(1)
                ).one()
            said = HEAD.format(chain_id=chain_id, sequence=head.sequence, hmac=head.hmac.hex())
            if self._server is not None:
                self._deliver([Line(datetime.now(UTC), f"audit_head {said}".encode(), "HEAD")])
            log.info("audit_head", head=said)
            self._mark(chain_id, head_sequence=head.sequence)

    def _behind(self, mark: object) -> Sequence[UUID]:
        last = (
            select(func.max(AuditEvent.sequence))
            .where(AuditEvent.chain_id == AuditChain.chain_id)
            .scalar_subquery()
        )
        with self._sessions() as session:
            return session.scalars(
                select(AuditChain.chain_id).where(last > mark).order_by(AuditChain.began_at)
            ).all()

    def _next_events(self, chain_id: UUID) -> Sequence[Row]:
        with self._sessions() as session:
            return session.execute(
                select(AuditEvent, AuditChain, Patient.patient_id)
                .join(AuditChain, AuditChain.chain_id == AuditEvent.chain_id)
                .outerjoin(Study, Study.study_instance_uid == AuditEvent.study_instance_uid)
                .outerjoin(Patient, Patient.id == Study.patient_id)
                .where(
                    AuditEvent.chain_id == chain_id,
                    AuditEvent.sequence > AuditChain.sent_sequence,
                )
                .order_by(AuditEvent.sequence)
                .limit(BATCH)
            ).all()

    def _mark(self, chain_id: UUID, **marks: int) -> None:
        with self._sessions.begin() as session:
            session.execute(
                update(AuditChain).where(AuditChain.chain_id == chain_id).values(**marks)
            )

    def _deliver(self, lines: Sequence[Line]) -> None:
        if self._server is not None:
            self._server.deliver(lines)


def _line(row: Row, settings: Settings) -> Line:
    chain: AuditChain = row.AuditChain
    return Line(
        row.AuditEvent.at,
        audit_message(
            row.AuditEvent,
            Source(chain.host, chain.service, chain.process),
            patient_id=(row.patient_id or "") if settings.audit_patient_id else "",
        ),
    )
