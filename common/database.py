"""Connections to Postgres, and whether the server keeps what it promises."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker

from common.answering import AnsweredConnection
from common.errors import StorageUnavailableError

# What each setting may be; anything else lets a committed row vanish at power loss.
DURABILITY: dict[str, tuple[str, ...]] = {
    "fsync": ("on",),
    "full_page_writes": ("on",),
    "synchronous_commit": ("on", "remote_write", "remote_apply"),
}

ANSWER_GRACE_S = 5.0  # for a server to say that a statement took too long

# How soon we notice that the server's host or the way to it is gone.
OUR_SIDE = {
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}
# How soon the server notices that we are gone. Its own default is two hours, for which it would
# keep what we hold: a study's row, or the lock that lets one process at a time do upkeep.
ITS_SIDE = {
    "tcp_user_timeout": 15_000,
    "tcp_keepalives_idle": 10,
    "tcp_keepalives_interval": 3,
    "tcp_keepalives_count": 3,
    "idle_in_transaction_session_timeout": 60_000,
    "lock_timeout": 10_000,
    "timezone": "utc",
}


def make_engine(url: str, *, pool_size: int = 5, statement_timeout_s: float = 30) -> Engine:
    """Make a pool of connections that gives up in seconds, not in TCP's quarter of an hour."""
    its_side = {**ITS_SIDE, "statement_timeout": int(statement_timeout_s * 1000)}
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=10,
        pool_pre_ping=True,
        connect_args={
            **OUR_SIDE,
            "options": " ".join(f"-c {name}={value}" for name, value in its_side.items()),
            "application_name": "firstread",
        },
    )

    @event.listens_for(engine, "do_connect")
    def connect(_dialect: Any, _record: Any, args: Any, keywords: Any) -> AnsweredConnection:  # noqa: ANN401
        connection = AnsweredConnection.connect(*args, **keywords)
        connection.answer_s = statement_timeout_s + ANSWER_GRACE_S
        return connection

    return engine


def make_sessions(engine: Engine) -> sessionmaker[Session]:
    """Make sessions whose objects stay readable after commit."""
    return sessionmaker(engine, expire_on_commit=False)


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn a database that is away, full or read-only into one error that may be retried.

    Raises:
        StorageUnavailableError: nothing was committed, or the commit's fate is unknown; the
            caller's step is safe to repeat.
    """
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        raise StorageUnavailableError(f"database: {_first_line(error)}") from error
    except DBAPIError as error:
        # Class 25006 is a read-only server, 53 lack of resources, 57 an operator's intervention.
        state = getattr(error.orig, "sqlstate", None) or ""
        if error.connection_invalidated or state == "25006" or state[:2] in {"53", "57", "58"}:
            raise StorageUnavailableError(f"database: {_first_line(error)}") from error
        raise


def _first_line(error: Exception) -> str:
    return (str(getattr(error, "orig", None) or error).strip().splitlines() or ["unknown"])[0]


@contextmanager
def only_one(engine: Engine, lock: int) -> Iterator[bool]:
    """Hold an advisory lock of the database for a while; False where another process has it."""
    with engine.connect() as connection:
        held = connection.execution_options(isolation_level="AUTOCOMMIT")
        key = {"key": lock}
        if not held.execute(text("SELECT pg_try_advisory_lock(:key)"), key).scalar():
            yield False
            return
        try:
            yield True
        finally:
            held.execute(text("SELECT pg_advisory_unlock(:key)"), key)


def durability_problems(session: Session) -> list[str]:
    """Name each setting of the server that would let an acknowledged image vanish."""
    problems = []
    for name, safe in DURABILITY.items():
        value = session.execute(text("SELECT current_setting(:name)"), {"name": name}).scalar_one()
        if value not in safe:
            problems.append(f"{name} is {value}; set it to on in postgresql.conf and reload")
    return problems
