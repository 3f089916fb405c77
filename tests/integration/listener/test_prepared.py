"""Statements that share a round trip: what they say, and what is left after one failed."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import cast

import psycopg
import pytest
from psycopg.pq.abc import PGconn
from psycopg.waiting import Ready
from sqlalchemy import Engine

from common.answering import AnsweredConnection
from dicom_listener.ledger import Ledger
from dicom_listener.prepared import BEGIN, COMMIT, Statement, _to_the_end, ask
from tests.integration.listener.test_ledger import backend, terminate

MAKE = Statement("CREATE TEMPORARY TABLE kept (number int PRIMARY KEY, said text)")
KEEP = Statement("INSERT INTO kept VALUES (%(number)s, %(said)s) RETURNING number")
COUNT = Statement("SELECT count(*) AS kept FROM kept")
DIVIDE = Statement("SELECT 1 / %(by)s::int AS quotient")
ECHO = Statement("""
SELECT %(text)s::text AS text, %(blob)s::bytea AS blob, %(many)s::text[] AS many,
       %(at)s::timestamptz AS at, %(yes)s::boolean AS yes, %(number)s::bigint AS number,
       %(nothing)s::text AS nothing, %(text)s::text AS again
""")


@pytest.fixture
def connection(engine: Engine) -> Iterator[AnsweredConnection]:
    """A connection as the listener has them, with a table of its own."""
    ledger = Ledger(engine)
    connection = ledger.write(lambda one: one)
    ask(connection, (MAKE, {}))
    yield connection
    ledger.close()


def kept(connection: AnsweredConnection) -> int:
    return ask(connection, (COUNT, {}))[0][0].kept


def test_values_come_back_as_they_were_sent(connection: AnsweredConnection) -> None:
    values = {
        "text": 'Jörg\\O\'Hara "x" %s $1',
        "blob": bytes(range(256)),
        "many": ["", "a,b", '{"', "\\", "ü"],
        "at": datetime(2026, 11, 27, 13, 5, 7, 123456, tzinfo=UTC),
        "yes": True,
        "number": -(1 << 40),
        "nothing": None,
    }
    ((row,),) = ask(connection, (ECHO, values))
    assert row._asdict() == values | {"again": values["text"]}


def test_several_are_one_transaction(connection: AnsweredConnection) -> None:
    first, second, counted = ask(
        connection,
        (KEEP, {"number": 1, "said": "a"}),
        (KEEP, {"number": 2, "said": "b"}),
        (COUNT, {}),
    )
    assert [first[0].number, second[0].number, counted[0].kept] == [1, 2, 2]
    with pytest.raises(psycopg.errors.DivisionByZero):
        ask(connection, (KEEP, {"number": 3, "said": "c"}), (DIVIDE, {"by": 0}), (COUNT, {}))
    assert kept(connection) == 2
    assert connection.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_a_failure_within_a_transaction_leaves_it_to_its_owner(
    connection: AnsweredConnection,
) -> None:
    ask(connection, (BEGIN, {}), (KEEP, {"number": 1, "said": "a"}))
    with pytest.raises(psycopg.errors.UniqueViolation):
        ask(connection, (KEEP, {"number": 1, "said": "b"}), (COMMIT, {}))
    connection.rollback()
    assert kept(connection) == 0


def test_a_text_that_would_be_cut_is_refused_before_anything_is_sent(
    connection: AnsweredConnection,
) -> None:
    with pytest.raises(psycopg.DataError, match="NUL"):
        ask(connection, (KEEP, {"number": 1, "said": "a"}), (KEEP, {"number": 2, "said": "b\0c"}))
    assert kept(connection) == 0


@pytest.mark.parametrize("value", ["a\0b", ["a\0b"]])
def test_a_nul_is_found_in_a_list_too(connection: AnsweredConnection, value: object) -> None:
    with pytest.raises(psycopg.DataError, match="NUL"):
        ask(connection, (KEEP, {"number": 1, "said": value}))


def test_a_line_that_the_library_itself_gave_up_is_an_error_and_no_endless_wait() -> None:
    class GivenUp:
        status = psycopg.pq.ConnStatus.BAD

        def flush(self) -> int:
            return 0

        def consume_input(self) -> None:
            pass

        def is_busy(self) -> bool:
            return False

        def get_result(self) -> None:
            return None

    step = _to_the_end(cast(PGconn, GivenUp()))
    next(step)
    with pytest.raises(psycopg.OperationalError):
        step.send(Ready.RW)


def test_more_than_a_socket_holds_is_sent(connection: AnsweredConnection) -> None:
    said = "x" * (1 << 20)
    answers = ask(connection, *((KEEP, {"number": n, "said": said}) for n in range(24)))
    assert [row.number for (row,) in answers] == list(range(24))


def test_a_server_that_goes_away_leaves_no_connection_to_go_on_with(
    connection: AnsweredConnection, engine: Engine
) -> None:
    terminate(engine, backend(connection))
    with pytest.raises(psycopg.OperationalError):
        ask(connection, (COUNT, {}), (COUNT, {}))
    assert connection.closed
