"""The connections that objects are registered over, when the server ends them."""

from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, text

from common.errors import StorageUnavailableError
from dicom_listener.ledger import Ledger


def backend(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return row[0]


def terminate(engine: Engine, pid: int) -> None:
    with engine.connect() as connection:
        ended = text("SELECT pg_terminate_backend(:pid, 5000)")
        assert connection.execute(ended, {"pid": pid}).scalar_one()


def test_a_step_on_a_connection_that_died_meanwhile_is_done_on_a_new_one(engine: Engine) -> None:
    ledger = Ledger(engine)
    first = ledger.write(backend)
    assert ledger.write(backend) == first
    terminate(engine, first)
    assert ledger.write(backend) != first
    ledger.close()


def test_a_connection_that_dies_each_time_is_an_error_that_may_be_retried(engine: Engine) -> None:
    ledger = Ledger(engine)
    ledger.write(backend)

    def die(connection: psycopg.Connection[Any]) -> None:
        terminate(engine, backend(connection))
        backend(connection)

    with pytest.raises(StorageUnavailableError):
        ledger.write(die)
    assert ledger.write(backend) > 0
    ledger.close()
