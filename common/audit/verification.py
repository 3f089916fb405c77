"""Find what was changed, removed, inserted, reordered or cut off in the audit chains."""

import hmac
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from common.audit.key import key_id
from common.audit.sealing import HEAD_PATTERN, Content, genesis, seal
from common.tables import AuditChain, AuditEvent

ROWS_AT_A_TIME = 2000


@dataclass(frozen=True)
class Head:
    """How far a chain had come when it was told outside the database."""

    chain_id: UUID
    sequence: int
    hmac: bytes


@dataclass(frozen=True)
class Problem:
    """One place where a chain is broken."""

    chain_id: UUID | None
    sequence: int | None
    says: str

    def __str__(self) -> str:
        """Name chain and number."""
        where = f"chain {self.chain_id} number {self.sequence}" if self.chain_id else "no chain"
        return f"{where}: {self.says}"


@dataclass
class Report:
    """What was looked at and what is wrong."""

    events: int = 0
    chains: int = 0
    unsealed: int = 0  # rows older than the chains
    heads: int = 0
    problems: list[Problem] = field(default_factory=list)


def read_heads(lines: Iterable[str]) -> Iterator[Head]:
    """Take recorded heads out of any text: a syslog file, an export, a service's log."""
    for line in lines:
        for chain_id, sequence, sealed in re.findall(HEAD_PATTERN, line):
            yield Head(UUID(chain_id), int(sequence), bytes.fromhex(sealed))


def verify(session: Session, key: bytes, heads: Iterable[Head] = ()) -> Report:
    """Recompute every chain and compare it with the heads that were told elsewhere."""
    report = Report()
    told: dict[UUID, dict[int, bytes]] = {}
    for head in heads:
        report.heads += 1
        told.setdefault(head.chain_id, {})[head.sequence] = head.hmac
    keys = {row.chain_id: row.key_id for row in session.scalars(select(AuditChain))}
    own = key_id(key)
    for chain_id, rows in _by_chain(session):
        report.chains += 1
        if keys.get(chain_id) != own:
            report.problems.append(
                Problem(chain_id, 1, f"sealed with another key ({keys.get(chain_id)})")
            )
            told.pop(chain_id, None)
            continue
        _verify_chain(chain_id, rows, key, told.pop(chain_id, {}), report)
    for chain_id, recorded in told.items():
        report.problems.append(
            Problem(chain_id, 1, f"all rows are gone; {max(recorded)} were recorded")
        )
    _find_unsealed(session, report)
    return report


def _by_chain(session: Session) -> Iterator[tuple[UUID, Iterator[AuditEvent]]]:
    chain_ids = session.scalars(
        select(AuditEvent.chain_id).where(AuditEvent.chain_id.is_not(None)).distinct()
    ).all()
    for chain_id in chain_ids:
        if chain_id is not None:
            yield (
                chain_id,
                iter(
                    session.scalars(
                        select(AuditEvent)
                        .where(AuditEvent.chain_id == chain_id)
                        .order_by(AuditEvent.sequence)
                        .execution_options(yield_per=ROWS_AT_A_TIME)
                    )
                ),
            )


def _verify_chain(
    chain_id: UUID,
    rows: Iterator[AuditEvent],
    key: bytes,
    told: dict[int, bytes],
    report: Report,
) -> None:
    def problem(sequence: int, says: str) -> None:
        report.problems.append(Problem(chain_id, sequence, says))

    before: bytes = genesis(key, chain_id)
    expected = 1
    for row in rows:
        report.events += 1
        sequence, sealed = row.sequence or 0, row.hmac or b""
        if sequence != expected:
            last = sequence - 1
            numbers = f"{expected}" if last == expected else f"{expected} to {last}"
            problem(expected, f"removed: {numbers} missing")
        else:
            content = Content.of(row, chain_id, sequence)
            if not hmac.compare_digest(seal(key, before, content), sealed):
                problem(sequence, "changed, inserted or reordered: its seal does not fit")
        recorded = told.pop(sequence, None)
        if recorded is not None and not hmac.compare_digest(recorded, sealed):
            problem(sequence, "rewritten: another seal was recorded")
        before, expected = sealed, sequence + 1
    beyond = [sequence for sequence in told if sequence >= expected]
    if beyond:
        problem(expected, f"cut off behind {expected - 1}: {max(beyond)} were recorded")


def _find_unsealed(session: Session, report: Report) -> None:
    """Count rows older than the chains; one that came later was inserted past them."""
    first = select(func.min(AuditEvent.id)).where(AuditEvent.chain_id.is_not(None))
    first_sealed = session.execute(first).scalar_one()
    unsealed = select(AuditEvent.id).where(AuditEvent.chain_id.is_(None))
    report.unsealed = session.execute(
        select(func.count()).select_from(unsealed.subquery())
    ).scalar_one()
    if first_sealed is None:
        return
    later = session.scalars(
        unsealed.where(AuditEvent.id > first_sealed).order_by(AuditEvent.id).limit(20)
    )
    report.problems += [
        Problem(None, None, f"row {row_id} has no seal: inserted, or by an older version")
        for row_id in later
    ]
