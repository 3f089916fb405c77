"""The bell's rope: one connection to the broker that is kept, and taken anew when it broke."""

from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from common.logs import get_logger
from common.queue import ANALYSE, rings_in

# So many may wait at a time. A permit drains what is queued, and one that still waits says that
# every thread of a worker is busy: more of them would tell nothing.
_MOST_PERMITS = 16

log = get_logger()


class Bell:
    """Ring over a connection of its own: making one costs more than registering an object.

    For one thread; ``common.queue.ring`` is for whoever rings now and then.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._connection: Any = None
        self._producer: Any = None

    def ring(self, analysis_id: int, times: int) -> bool:
        """Say that there is work. A lost ring delays work and never loses it.

        Returns:
            False if the broker did not answer.
        """
        was_open = self._connection is not None
        try:
            self._send(analysis_id, times)
        except (OperationalError, RedisError, OSError) as error:
            self.close()
            if was_open:  # the broker may have been restarted since
                return self.ring(analysis_id, times)
            log.warning("bell_unheard", reason=type(error).__name__)
            return False
        return True

    def close(self) -> None:
        """Let go of the connection. Safe to repeat."""
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            connection.release()

    def _send(self, analysis_id: int, times: int) -> None:
        if self._connection is None:
            self._connection = self._app.connection_for_write()
            self._producer = self._app.amqp.Producer(self._connection, auto_declare=False)
        for _ in range(min(times, _MOST_PERMITS - rings_in(self._producer.channel))):
            # Without an expiry: that is an instant on our clock, judged by the worker's.
            self._app.send_task(ANALYSE, args=(analysis_id,), producer=self._producer, retry=False)
