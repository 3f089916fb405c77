"""A connection to Postgres that gives up on a server which holds the line and says nothing."""

import time
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.pq.abc import PGconn

Value = TypeVar("Value")


class AnsweredConnection(psycopg.Connection[Any]):
    """Wait for an answer so long and no longer, then hang up.

    TCP tells of a host that is gone. It does not tell of one that is frozen, nor of a proxy that
    has lost the other side: their kernel acknowledges everything, and libpq would wait for ever.
    """

    answer_s = 35.0  # the server's own time limits have to be shorter

    def __init__(self, pgconn: PGconn) -> None:
        super().__init__(pgconn)
        self.prepared: set[bytes] = set()  # names of statements that its user has prepared on it

    def wait(self, gen: PQGen[Value], interval: float = 0.1, timeout: float | None = None) -> Value:
        """Run a step of the protocol to its end.

        Raises:
            psycopg.OperationalError: no answer came; the connection is closed.
        """
        limit_s = self.answer_s if timeout is None else timeout
        give_up_at = time.monotonic() + limit_s
        try:
            return super().wait(gen, interval, limit_s)
        except psycopg.OperationalError as error:
            if timeout is not None or time.monotonic() < give_up_at:
                raise
            self.close()
            raise psycopg.OperationalError(f"no answer in {limit_s:g} s") from error
