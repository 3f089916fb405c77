"""The bell: heard after its Redis died, and whatever the clocks of its two ends say."""

from collections.abc import Iterator

import pytest
from kombu.entity import Queue
from kombu.message import Message
from kombu.messaging import Consumer

from common.queue import ANALYSE_QUEUE, make_celery, ring
from tests.own_broker import Broker, running_broker


@pytest.fixture
def broker() -> Iterator[Broker]:
    with running_broker() as broker:
        yield broker


def test_a_message_at_hand_when_the_broker_dies_makes_room_for_the_next(broker: Broker) -> None:
    app = make_celery(broker.url)
    taken: list[Message] = []
    with app.connection_for_read() as connection, connection.channel() as channel:
        channel.basic_qos(0, 1, False)  # as beat's consumer: one message at a time
        consumer = Consumer(
            channel,
            [Queue(ANALYSE_QUEUE)],
            on_message=taken.append,
            accept=["json"],
        )
        with consumer:
            assert ring(app, 1, times=2)
            connection.drain_events(timeout=5)
            assert len(taken) == 1
            assert not channel.qos.can_consume()
            broker.kill()
            taken[0].ack()
            assert channel.qos.can_consume()
    app.close()


def test_no_clock_says_when_a_ring_has_become_stale(broker: Broker) -> None:
    app = make_celery(broker.url)
    with app.connection_for_read() as connection, connection.channel() as channel:
        assert ring(app, 1)
        message = channel.basic_get(ANALYSE_QUEUE, no_ack=True)
        assert message is not None
        assert message.headers["task"] == "firstread.analyse"
        assert message.headers["expires"] is None
    app.close()
