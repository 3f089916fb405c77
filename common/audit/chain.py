"""One chain a process and database: rows are sealed as their transaction commits.

``audit`` notes an event in its session. Just before the commit, when no other lock is still to be
taken, the noted events get their numbers and seals; the chain is held until the transaction has
ended, so that numbers follow the order of commits and a rollback leaves no gap. Where a commit's
fate is unknown the process goes on under a new chain.
"""

import os
import socket
import sys
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import UUID, uuid4
from weakref import WeakKeyDictionary

from sqlalchemy import Engine, event, func, select
from sqlalchemy.orm import Session, SessionTransaction

from common.audit.key import key_id, read_key
from common.audit.sealing import Content, genesis, seal
from common.errors import StorageUnavailableError
from common.settings import get_settings
from common.tables import AuditChain, AuditEvent

HOLD_S = 10.0  # longest wait for another thread's audited commit
_NOTED, _HELD = "audit_noted", "audit_held"


class Chain:
    """Where this process stands in its chain on one database."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._lock = Lock()
        self._pid = os.getpid()
        self._begin()

    def _begin(self) -> None:
        self.chain_id: UUID = uuid4()
        self.committed = 0  # rows
        self._last = genesis(self._key, self.chain_id)
        self._next: tuple[int, bytes] = (0, self._last)

    def hold(self) -> None:
        """Keep every other transaction of this process out until ``let_go``.

        Raises:
            StorageUnavailableError: another one's commit hangs.
        """
        if not self._lock.acquire(timeout=HOLD_S):
            raise StorageUnavailableError("another audited commit does not end")
        if self._pid != os.getpid():  # a forked child is another process
            self._pid = os.getpid()
            self._begin()
        self._next = (self.committed, self._last)

    def let_go(self, *, committed: bool) -> None:
        """Go on behind what was committed, or under a new chain if that is not certain."""
        if committed:
            self.committed, self._last = self._next
        else:
            self._begin()
        self._lock.release()

    def first_row(self) -> AuditChain | None:
        """Give the row that introduces the chain, before its first event."""
        if self.committed:
            return None
        return AuditChain(
            chain_id=self.chain_id,
            key_id=key_id(self._key),
            service=Path(sys.argv[0] or "python").name[:32],
            host=socket.gethostname()[:255],
            process=os.getpid(),
        )

    def seal(self, noted: AuditEvent, at: Any) -> None:  # noqa: ANN401 - a datetime
        """Give an event its place."""
        sequence, last = self._next
        noted.chain_id, noted.sequence, noted.at = self.chain_id, sequence + 1, at
        content = Content.of(noted, self.chain_id, sequence + 1)
        sealed = noted.hmac = seal(self._key, last, content)
        self._next = (sequence + 1, sealed)


_chains: WeakKeyDictionary[Engine, Chain] = WeakKeyDictionary()
_chains_lock = Lock()


def note(session: Session, audited: AuditEvent) -> None:
    """Let an event be written with this session's transaction, whatever becomes of it."""
    if not session.in_transaction():
        session.begin()  # or a rollback would have nothing to end, and the note would outlive it
    noted = session.info.setdefault(_NOTED, [])
    noted.append((session.get_nested_transaction(), audited))


def _chain(session: Session) -> Chain:
    engine = session.get_bind().engine
    with _chains_lock:
        chain = _chains.get(engine)
        if chain is None:
            chain = _chains[engine] = Chain(read_key(get_settings()))
        return chain


@event.listens_for(Session, "before_commit")
def _write_noted(session: Session) -> None:
    if session.in_nested_transaction() or not session.info.get(_NOTED):
        return
    noted = session.info.pop(_NOTED)
    session.flush()  # what waits for other rows' locks waits here, not while the chain is held
    chain = _chain(session)
    chain.hold()
    session.info[_HELD] = (chain, False)
    first = chain.first_row()
    if first is not None:
        session.add(first)
        session.flush()
    at = session.execute(select(func.clock_timestamp())).scalar_one()
    for _, audited in noted:
        chain.seal(audited, at)
        session.add(audited)
    session.flush()


@event.listens_for(Session, "after_commit")
def _mark_committed(session: Session) -> None:
    held = session.info.get(_HELD)
    if held is not None and not session.in_nested_transaction():
        session.info[_HELD] = (held[0], True)


@event.listens_for(Session, "after_transaction_end")
def _end(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is not None:
        return
    session.info.pop(_NOTED, None)
    held = session.info.pop(_HELD, None)
    if held is not None:
        held[0].let_go(committed=held[1])


@event.listens_for(Session, "after_soft_rollback")
def _forget_undone(session: Session, previous: SessionTransaction) -> None:
    """Drop what was noted within a savepoint that is undone."""
    if previous.nested and _NOTED in session.info:
        session.info[_NOTED] = [
            (within, audited) for within, audited in session.info[_NOTED] if within is not previous
        ]
