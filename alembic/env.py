"""Run migrations against FIRSTREAD_DATABASE_URL, or on the engine that the caller hands over.

Services work meanwhile, so a migration is a transaction of its own and never waits long for a
lock: it gives way, as a whole, and is tried again (docs/decisions/0019).
"""

import time
from collections.abc import Callable
from functools import partial

from alembic import context
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import OperationalError

from common.database import make_engine, only_one
from common.errors import MigrationError
from common.grants import grant_privileges
from common.logs import get_logger
from common.settings import get_settings
from common.tables import Base

MIGRATION_LOCK = 7265001  # two hosts may start at once
TURN_S = 600.0

TRIES = 40
PAUSE_S = 2.0  # at most, between two tries
LOCK_TIMEOUT_S = 0.3
# Postgres sends its autovacuum away from a table only once somebody has waited for a second.
LONG_EVERY = 4
LONG_LOCK_TIMEOUT_S = 2.0
# Outside of transactions only indexes are made, concurrently: they bar nobody while they wait.
CONCURRENT_LOCK_TIMEOUT_S = 60.0

GAVE_WAY = {"55P03": "waited too long for a lock", "40P01": "stood in a circle of locks"}

log = get_logger()


def run() -> None:
    """Migrate, one process at a time."""
    engine: Engine | None = context.config.attributes.get("engine")
    tries: int = context.config.attributes.get("tries", TRIES)
    if engine is not None:
        _wait_for_turn(engine, tries)
        return
    own = make_engine(get_settings().database_address(), pool_size=2, statement_timeout_s=600)
    try:
        _wait_for_turn(own, tries)
    finally:
        own.dispose()


def _wait_for_turn(engine: Engine, tries: int) -> None:
    # Asking again and again: who waits inside Postgres has a snapshot, and for the end of every
    # snapshot waits whoever makes an index concurrently. The two would wait for each other.
    deadline = time.monotonic() + TURN_S
    while time.monotonic() < deadline:
        with only_one(engine, MIGRATION_LOCK) as is_ours:
            if is_ours:
                _migrate(engine, tries)
                return
        time.sleep(0.2)
    raise MigrationError(f"Another process has been migrating this database for {TURN_S:g} s")


def _migrate(engine: Engine, tries: int) -> None:
    with engine.connect() as connection:
        connection.exec_driver_sql(f"SET lock_timeout = '{CONCURRENT_LOCK_TIMEOUT_S}s'")
        connection.commit()
        context.configure(
            connection=connection, target_metadata=Base.metadata, transaction_per_migration=True
        )
        try:
            _giving_way(connection, context.run_migrations, tries)
            _giving_way(connection, partial(grant_privileges, connection), tries)
        finally:
            connection.invalidate()  # the pool's next user would inherit the timeout


def _giving_way(connection: Connection, step: Callable[[], None], tries: int) -> None:
    """Do a step whose transactions do not wait for locks; again from where it gave way.

    Raises:
        MigrationError: it gave way every time. What it did not do is undone.
    """
    number, reason = 0, ""

    def wait_briefly(begun: Connection) -> None:
        is_long = number % LONG_EVERY == LONG_EVERY - 1
        seconds = LONG_LOCK_TIMEOUT_S if is_long else LOCK_TIMEOUT_S
        begun.exec_driver_sql(f"SET LOCAL lock_timeout = '{seconds}s'")

    event.listen(connection, "begin", wait_briefly)
    try:
        for number in range(tries):
            try:
                step()
                connection.commit()
            except OperationalError as error:
                reason = GAVE_WAY.get(getattr(error.orig, "sqlstate", None) or "", "")
                if not reason:
                    raise
                connection.rollback()
                log.warning("migration_gave_way", reason=reason, tried=number + 1)
                time.sleep(min(PAUSE_S, 0.1 * 2**number))
            else:
                return
    finally:
        event.remove(connection, "begin", wait_briefly)
    raise MigrationError(
        f"The migration {reason} {tries} times and gave way each time. Services were not "
        "disturbed and nothing is half done: run `firstread migrate` again when less is written, "
        "and end transactions that stay open (pg_stat_activity)"
    )


run()
