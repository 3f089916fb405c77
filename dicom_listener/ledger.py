"""The connections that objects are registered over: kept open, and replaced when they died."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar, cast

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import PoolProxiedConnection

from common.answering import AnsweredConnection
from common.database import storage_errors

Written = TypeVar("Written")
Connection = AnsweredConnection

# What was prepared is of no use any more: the plan of a table that a migration has changed since,
# or a name that the server, or a proxy before it, has forgotten.
STALE = (psycopg.NotSupportedError, psycopg.errors.InvalidSqlStatementName)


class Patience(NamedTuple):
    """How long a step waits for another's lock, and for the server to say anything."""

    lock_ms: int
    answer_s: float


class Ledger:
    """Run what writes to Postgres on connections of the driver, one to each thread that asks.

    The engine's pool would ask each connection whether it still lives, a round trip an object.
    Here what was found dead is replaced and the step done again: every step is safe to repeat.
    """

    def __init__(self, engine: Engine, patience: Patience | None = None) -> None:
        """Take the pool to connect by, and how patient to be if not as its connections are."""
        self._engine = engine
        self._patience = patience
        self._idle: deque[PoolProxiedConnection] = deque()

    def write(self, step: Callable[[Connection], Written]) -> Written:
        """Run a step; again, once, if the line was dead. It ends its transactions by itself.

        Raises:
            StorageUnavailableError: the database is away, full or read-only.
        """
        with storage_errors(), _driver_errors():
            while self._idle:
                try:
                    pooled = self._idle.pop()
                except IndexError:  # another thread was faster
                    break
                connection = _connection(pooled)  # the pool forgets it when it is dead
                try:
                    return self._run(pooled, step)
                except (psycopg.OperationalError, *STALE):
                    if not connection.closed:
                        raise
                    self.close()  # it died since it was last used, and so did the others
            return self._run(self._connect(), step)

    def _connect(self) -> PoolProxiedConnection:
        """Open a connection in autocommit: a step begins its transactions by itself.

        Its statements find what they look for by unique keys, so one plan serves for all values.
        """
        pooled = self._engine.raw_connection()
        try:
            connection = _connection(pooled)
            connection.autocommit = True
            if self._patience is not None:
                connection.answer_s = self._patience.answer_s
                setting = ("lock_timeout", str(self._patience.lock_ms))
                connection.execute("SELECT set_config(%s, %s, false)", setting)
            # What is prepared from now on is by `prepared.ask`. A connection that the pool had lent
            # to others may have more: the driver's next rollback would take it back, and ours too.
            connection.execute("DEALLOCATE ALL")
            connection.prepare_threshold = None
            connection.execute("SET plan_cache_mode = force_generic_plan")
            connection.execute("SET client_encoding = 'UTF8'")
        except BaseException:
            pooled.invalidate()  # it must not go back among those that begin by themselves
            raise
        return pooled

    def close(self) -> None:
        """Close what is idle. Safe to repeat, also while others write."""
        while self._idle:
            try:
                self._idle.pop().invalidate()
            except IndexError:
                return

    def _run(self, pooled: PoolProxiedConnection, step: Callable[[Connection], Written]) -> Written:
        connection = _connection(pooled)
        try:
            return step(connection)
        except STALE:
            connection.close()
            raise
        finally:
            self._put_back(pooled, connection)

    def _put_back(self, pooled: PoolProxiedConnection, connection: Connection) -> None:
        try:
            if is_within_transaction(connection):
                connection.rollback()
        except psycopg.Error:
            connection.close()
        if connection.closed:
            pooled.invalidate()
        else:
            self._idle.append(pooled)


def is_within_transaction(connection: Connection) -> bool:
    """Say whether there is anything to commit or roll back: the driver's own look costs more."""
    return connection.pgconn.transaction_status != TransactionStatus.IDLE


def _connection(pooled: PoolProxiedConnection) -> Connection:
    return cast(Connection, pooled.driver_connection)


@contextmanager
def _driver_errors() -> Iterator[None]:
    """Give the driver's errors the shape that everything else knows."""
    try:
        yield
    except psycopg.Error as error:
        raise DBAPIError.instance("", None, error, psycopg.Error) from error
