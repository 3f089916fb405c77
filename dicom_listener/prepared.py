"""Prepared statements, several to a round trip, over the driver's own calls of the protocol.

The driver's cursors read a statement's text again, convert each value by its type and decide what
to prepare: for a statement of fifty values twice what sending it costs. What is sent here has text
values only, of which Postgres knows the types; what comes back the driver reads as ever.

Source: https://www.postgresql.org/docs/current/libpq-pipeline-mode.html
"""

import re
from collections import namedtuple
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import count
from typing import Any

from psycopg import abc, errors
from psycopg.adapt import Transformer
from psycopg.generators import execute
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.waiting import Ready, Wait

from common.answering import AnsweredConnection

Row = Any  # a named tuple, with the names that the statement gives
_PLACE = re.compile(r"%\((\w+)\)s")
_GOOD = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)
_numbers = count(1)


class Statement:
    """SQL with named places, numbered once as Postgres wants them; prepared once a connection."""

    def __init__(self, text: str) -> None:
        self.names = list(dict.fromkeys(_PLACE.findall(text)))
        places = {name: number for number, name in enumerate(self.names, 1)}
        self.sql = _PLACE.sub(lambda place: f"${places[place[1]]}", text).encode()
        self.prepared_as = f"firstread_{next(_numbers)}".encode()
        self._row: Any = None

    def rows(self, transformer: abc.Transformer, result: PGresult) -> list[Row]:
        """Make rows of the names that this statement always gives, found out once."""
        if self._row is None:
            names = [(result.fname(column) or b"").decode() for column in range(result.nfields)]
            self._row = namedtuple("Row", names)._make
        transformer.set_pgresult(result)
        return transformer.load_rows(0, result.ntuples, self._row)


Call = tuple[Statement, Mapping[str, Any]]
BEGIN, COMMIT = Statement("BEGIN"), Statement("COMMIT")


def ask(connection: AnsweredConnection, *calls: Call) -> list[list[Row]]:
    """Run statements in one round trip and give the rows of each.

    Without a transaction begun before or among them they are one: all of them or none.

    Args:
        connection: In autocommit.
        calls: Each a statement and the values of its places.

    Raises:
        psycopg.Error: what the first statement that failed met with; none after it was run.
    """
    written = [
        (statement, [_text(values[name]) for name in statement.names])
        for statement, values in calls
    ]
    try:
        results = _results(connection, written)
    except BaseException:
        connection.close()  # who knows what is still on its way
        raise
    for result in results:
        if result.status not in _GOOD:
            raise errors.error_from_result(result, connection.info.encoding)
    transformer = Transformer(connection)
    pairs = zip(calls, results, strict=True)
    return [statement.rows(transformer, result) for (statement, _), result in pairs]


def _results(
    connection: AnsweredConnection, written: Sequence[tuple[Statement, Sequence[bytes | None]]]
) -> list[PGresult]:
    pgconn = connection.pgconn
    for statement, _ in written:
        if statement.prepared_as not in connection.prepared:
            pgconn.send_prepare(statement.prepared_as, statement.sql)
            (result,) = connection.wait(execute(pgconn))
            if result.status not in _GOOD:
                return [result]
            connection.prepared.add(statement.prepared_as)
    if len(written) == 1:
        ((statement, texts),) = written
        pgconn.send_query_prepared(statement.prepared_as, texts)
        return connection.wait(execute(pgconn))
    pgconn.enter_pipeline_mode()
    for statement, texts in written:
        pgconn.send_query_prepared(statement.prepared_as, texts)
    pgconn.pipeline_sync()
    results = connection.wait(_to_the_end(pgconn))
    pgconn.exit_pipeline_mode()
    return results


def _to_the_end(pgconn: PGconn) -> abc.PQGen[list[PGresult]]:
    """Send what is not sent yet and collect results until the pipeline is through."""
    results: list[PGresult] = []
    wanted = Wait.RW
    while True:
        ready = yield wanted
        if ready & Ready.W and pgconn.flush() == 0:
            wanted = Wait.R
        if not ready & Ready.R:
            continue
        pgconn.consume_input()
        while not pgconn.is_busy():
            result = pgconn.get_result()
            if result is None:  # between two statements, or libpq itself has hung up
                if pgconn.status == ConnStatus.BAD:
                    raise errors.OperationalError("the connection was lost")
                continue
            if result.status == ExecStatus.PIPELINE_SYNC:
                return results
            results.append(result)


def _text(value: object) -> bytes | None:
    """Write a value as Postgres reads it, whatever its type there."""
    if isinstance(value, str):  # most are
        return _encoded(value)
    if value is None:
        return None
    if isinstance(value, bytes):
        return b"\\x" + value.hex().encode()
    if isinstance(value, datetime):
        return value.isoformat().encode()
    if isinstance(value, list):
        quoted = (str(one).replace("\\", "\\\\").replace('"', '\\"') for one in value)
        return _encoded("{" + ",".join(f'"{one}"' for one in quoted) + "}")
    return str(value).encode()


def _encoded(text: str) -> bytes:
    if "\0" in text:  # what follows it would be lost
        raise errors.DataError("text with a NUL")
    return text.encode()
