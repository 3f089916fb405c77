"""Checks of what a service needs for its job: bounded in time, asked once a second at most."""

import os
import time
from collections.abc import Callable
from threading import Lock, Thread

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from common.archive import Archive

TIMEOUT_S = 2.0
FRESH_S = 1.0


class Check:
    """One question: well, or what is not. A question that hangs is not asked again meanwhile.

    Args:
        ask: Says what is wrong, "" if nothing; without addresses, names or secrets.
    """

    def __init__(
        self,
        name: str,
        ask: Callable[[], str],
        *,
        timeout_s: float = TIMEOUT_S,
        fresh_s: float = FRESH_S,
    ) -> None:
        self.name = name
        self._ask = ask
        self._timeout_s = timeout_s
        self._fresh_s = fresh_s
        self._lock = Lock()
        self._thread: Thread | None = None
        self._found = ""
        self._found_at = float("-inf")

    def problem(self) -> str:
        """Give what is wrong, "" if nothing. Never raises, never takes longer than the limit."""
        with self._lock:
            if time.monotonic() - self._found_at < self._fresh_s:
                return self._found
            if self._thread is None or not self._thread.is_alive():
                self._thread = Thread(target=self._answer, name=f"check {self.name}", daemon=True)
                self._thread.start()
            self._thread.join(self._timeout_s)
            if self._thread.is_alive():
                self._found = f"no answer in {self._timeout_s:g} s"
            self._found_at = time.monotonic()
            return self._found

    def _answer(self) -> None:
        try:
            self._found = self._ask()
        except Exception as error:  # noqa: BLE001 - the boundary: whatever it is, it is not well
            self._found = type(error).__name__


def database_check(engine: Engine) -> Check:
    """Ask whether the database answers."""

    def ask() -> str:
        try:
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        except SQLAlchemyError as error:
            return f"does not answer ({type(error).__name__})"
        return ""

    return Check("database", ask)


def broker_check(url: str) -> Check:
    """Ask whether Redis answers."""

    def ask() -> str:
        try:
            with Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1) as client:
                client.ping()
        except (RedisError, OSError) as error:
            return f"does not answer ({type(error).__name__})"
        return ""

    return Check("broker", ask)


def archive_check(archive: Archive, reserve_bytes: int = 0) -> Check:
    """Ask whether the archive takes a file, and has more room than the reserve."""

    def ask() -> str:
        trial = archive.root / f".ready-{os.getpid()}"
        try:
            descriptor = os.open(trial, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.write(descriptor, b"ready")
            finally:
                os.close(descriptor)
                trial.unlink(missing_ok=True)
            if archive.free_bytes() < reserve_bytes:
                return "less free space than the reserve"
        except OSError as error:
            return f"takes no file ({error.strerror})"
        return ""

    return Check("archive", ask)
