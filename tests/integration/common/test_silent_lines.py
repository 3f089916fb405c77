"""Servers that hold the line and say nothing: their kernel acknowledges, so TCP sees no fault."""

import os
import signal
import time
from collections.abc import Iterator
from threading import Thread

import pytest
from kombu.entity import Queue
from kombu.message import Message
from kombu.messaging import Consumer
from sqlalchemy import text

from common import database
from common.database import make_engine, storage_errors
from common.errors import StorageUnavailableError
from common.queue import ANALYSE_QUEUE, make_celery, ring
from tests.faults.relay import Relay


@pytest.fixture
def relay(broker_url: str) -> Iterator[Relay]:
    """Stand between us and Redis."""
    relay = Relay(0, broker_url.removeprefix("unix://"))
    thread = Thread(target=relay.serve)
    thread.start()
    yield relay
    relay.stop()
    thread.join(10)


def test_a_frozen_database_is_given_up_and_the_next_connection_is_a_new_one(
    database_url: str,
) -> None:
    engine = make_engine(database_url, pool_size=1, statement_timeout_s=0.5)
    with engine.connect() as connection:
        backend = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    os.kill(backend, signal.SIGSTOP)
    started = time.monotonic()
    try:
        with engine.connect() as connection:  # asks whether the old one is alive, and gives it up
            assert connection.execute(text("SELECT pg_backend_pid()")).scalar_one() != backend
        took_s = time.monotonic() - started
    finally:
        os.kill(backend, signal.SIGCONT)
    assert database.ANSWER_GRACE_S < took_s < 0.5 + database.ANSWER_GRACE_S + 3
    engine.dispose()


def test_a_database_that_freezes_within_a_transaction_is_an_error_that_may_be_retried(
    database_url: str,
) -> None:
    engine = make_engine(database_url, pool_size=1, statement_timeout_s=0.5)
    with engine.connect() as connection:
        backend = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        os.kill(backend, signal.SIGSTOP)
        try:
            with (
                pytest.raises(StorageUnavailableError, match=r"no answer in 5\.5 s"),
                storage_errors(),
            ):
                connection.execute(text("SELECT 1"))
        finally:
            os.kill(backend, signal.SIGCONT)
    engine.dispose()


def test_a_server_ends_a_transaction_that_its_client_left_idle(database_url: str) -> None:
    engine = make_engine(database_url, pool_size=1)
    with engine.connect() as connection:
        limit = connection.execute(text("SHOW idle_in_transaction_session_timeout")).scalar_one()
    assert limit == "1min"
    engine.dispose()


def test_a_consumer_on_a_half_open_connection_to_redis_asks_again_on_a_new_one(
    broker_url: str, relay: Relay
) -> None:
    app = make_celery(f"redis://127.0.0.1:{relay.port}/0")
    direct = make_celery(broker_url)
    taken: list[Message] = []
    with (
        app.connection_for_read() as connection,
        connection.channel() as channel,
        Consumer(channel, [Queue(ANALYSE_QUEUE)], on_message=taken.append, accept=["json"]),
    ):
        assert ring(direct, 1)
        connection.drain_events(timeout=5)
        assert len(taken) == 1
        taken[0].ack()
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.5)  # it waits for the next by now
        assert int(relay.tell("freeze").split()[0]) > 0  # connections
        time.sleep(2)  # what it asked Redis for is over: a message given to a dead line is lost
        assert ring(direct, 2)
        started = time.monotonic()
        while len(taken) == 1 and time.monotonic() < started + 30:
            try:
                connection.drain_events(timeout=1)
            except TimeoutError:
                continue
        assert len(taken) == 2
        assert time.monotonic() - started < 15
        taken[1].ack()
        relay.tell("cut")
    app.close()
    direct.close()
