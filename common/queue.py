"""The bell: Celery on Redis. A message says that there is work; Postgres says which."""

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from common.logs import get_logger

ANALYSE = "firstread.analyse"
UPKEEP = "firstread.upkeep"
ANALYSE_QUEUE = "firstread.analyse"
UPKEEP_QUEUE = "firstread.upkeep"

log = get_logger()


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
        broker_transport_options={
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
            "retry_on_timeout": False,
        },
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
                app.send_task(
                    ANALYSE, args=(analysis_id,), connection=connection, retry=False, expires=3600
                )
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
        return int(channel._size(ANALYSE_QUEUE))  # pyright: ignore[reportAttributeAccessIssue]
