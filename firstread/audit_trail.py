"""What the command line asks of the audit trail."""

import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import select

from common.audit.key import read_key
from common.audit.messages import Source, audit_message
from common.audit.verification import Head, Report, read_heads, verify
from common.database import storage_errors
from common.errors import ConfigurationError
from common.reading import audit
from common.settings import Settings
from common.tables import AuditChain, AuditEvent, Patient, Study
from firstread.ledger import Ledger

LONGEST_STATEMENT_S = 3600  # the whole trail is read


def verify_trail(settings: Settings, heads: Iterable[Path] | None) -> Report:
    """Verify every chain against the recorded heads.

    Raises:
        ConfigurationError: a file of heads cannot be read, or the key cannot.
    """
    key = read_key(settings)
    with (
        Ledger(settings, statement_timeout_s=LONGEST_STATEMENT_S) as ledger,
        storage_errors(),
        ledger.sessions() as session,
    ):
        return verify(session, key, list(_heads(settings, heads)))


def _heads(settings: Settings, files: Iterable[Path] | None) -> Iterator[Head]:
    log = settings.home / "logs" / "beat.log"
    own = [path for path in (log.with_suffix(".log.1"), log) if path.exists()]
    for path in own if files is None else files:
        try:
            with path.open(encoding="utf-8", errors="replace") as lines:
                yield from read_heads(lines)
        except OSError as error:
            raise ConfigurationError(f"--heads {path}: {error.strerror}") from error


def export_trail(settings: Settings, out: Path, since: datetime | None) -> int:
    """Write events as audit messages, private to this user; the export itself is audited.

    Returns:
        How many were written.
    """
    wanted = (
        select(AuditEvent, AuditChain, Patient.patient_id)
        .outerjoin(AuditChain, AuditChain.chain_id == AuditEvent.chain_id)
        .outerjoin(Study, Study.study_instance_uid == AuditEvent.study_instance_uid)
        .outerjoin(Patient, Patient.id == Study.patient_id)
        .order_by(AuditEvent.at, AuditEvent.id)
    )
    if since is not None:
        wanted = wanted.where(AuditEvent.at >= since.replace(tzinfo=since.tzinfo or UTC))
    count = 0
    try:
        with (
            Ledger(settings, statement_timeout_s=LONGEST_STATEMENT_S) as ledger,
            storage_errors(),
            ledger.sessions.begin() as session,
        ):
            descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                rows = session.execute(wanted.execution_options(yield_per=1000))
                for event, chain, patient_id in rows:
                    source = (
                        Source(chain.host, chain.service, chain.process)
                        if chain is not None
                        else Source("unknown", "firstread", 0)
                    )
                    shown = (patient_id or "") if settings.audit_patient_id else ""
                    message = audit_message(event, source, patient_id=shown)
                    file.write(message.replace(b"\n", b" ") + b"\n")
                    count += 1
            audit(session, ledger.actor, "audit_exported", messages=count)
    except OSError as error:
        raise ConfigurationError(f"--out {out}: {error.strerror}") from error
    return count
