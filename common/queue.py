"""The bell: Celery on Redis. A message says that there is work; Postgres says which."""

import socket
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from redis.exceptions import RedisError

from common.logs import get_logger

ANALYSE = "firstread.analyse"
UPKEEP = "firstread.upkeep"
ANALYSE_QUEUE = "firstread.analyse"
UPKEEP_QUEUE = "firstread.upkeep"

# How soon a way to Redis that has gone dead is noticed: by the kernel where packets are lost, by
# kombu where they are acknowledged and nothing answers.
SILENT_LINE = {
    "socket_timeout": 5,
    "socket_connect_timeout": 2,
    "health_check_interval": 5,
    "socket_keepalive": True,
    "socket_keepalive_options": {
        socket.TCP_KEEPIDLE: 5,
        socket.TCP_KEEPINTVL: 2,
        socket.TCP_KEEPCNT: 3,
        socket.TCP_USER_TIMEOUT: 10_000,
    },
}

log = get_logger()


class Permits(kombu_redis.QoS):
    """Count the messages at hand in this process alone; Redis keeps no copy of them.

    kombu's own notes every message in Redis until it is acknowledged, to deliver it again. Here
    that serves nothing, and if Redis dies before the note is taken back, the message counts as
    unanswered for ever: a consumer of one message at a time then never asks for another, and
    does not notice that its connection is gone.
    """

    def append(self, message: Any, delivery_tag: str) -> None:  # noqa: ANN401 - kombu's Message
        """Count a message that was taken."""
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Count it as answered; this cannot fail."""
        virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Count it as answered: upkeep rings again for what is still queued."""
        virtual.QoS.ack(self, delivery_tag)

    def restore_unacked(self, client: object = None) -> None:
        """Forget what was not begun: upkeep rings again for it."""
        if self._delivered:
            self._delivered.clear()

    def restore_visible(self, *_: object, **__: object) -> None:
        """Restore nothing: there are no copies."""


kombu_redis.Channel.QoS = Permits


def make_celery(broker_url: str) -> Celery:
    """Make the Celery application that rings and hears the bell.

    JSON only, remote control off, no results: recovery is the ledger's alone, so messages are
    acknowledged when taken and nothing is redelivered.
    """
    app = Celery("firstread", broker=_celery_url(broker_url))
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={**SILENT_LINE, "retry_on_timeout": False},
        task_routes={
            ANALYSE: {"queue": ANALYSE_QUEUE},
            UPKEEP: {"queue": UPKEEP_QUEUE},
        },
        task_default_queue=ANALYSE_QUEUE,
        timezone="UTC",
    )
    return app


def _celery_url(broker_url: str) -> str:
    """Spell a Unix socket's address as kombu wants it."""
    return broker_url.replace("unix://", "redis+socket://", 1)


def ring(app: Celery, analysis_id: int, *, times: int = 1) -> bool:
    """Say that there is work. A lost ring delays work and never loses it.

    Returns:
        False if the broker did not answer.
    """
    try:
        with app.connection_for_write() as connection:
            for _ in range(times):
                # Without an expiry: that is an instant on our clock, judged by the worker's.
                app.send_task(ANALYSE, args=(analysis_id,), connection=connection, retry=False)
    except (OperationalError, RedisError, OSError) as error:
        log.warning("bell_unheard", reason=type(error).__name__)
        return False
    return True


def waiting_rings(app: Celery) -> int:
    """Count the rings that no worker has taken yet.

    Raises:
        OperationalError: the broker does not answer.
    """
    with app.connection_for_write() as connection, connection.channel() as channel:
        return rings_in(channel)


def rings_in(channel: Any) -> int:  # noqa: ANN401 - kombu's, which has no types
    """Count the rings that no worker has taken yet, over a channel that is open already."""
    return int(channel._size(ANALYSE_QUEUE))
