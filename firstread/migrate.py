"""Bring a database up to date: its tables, and the model bundles that come with this version."""

from pathlib import Path
from typing import cast

import psycopg
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from common.database import make_engine, make_sessions, storage_errors
from common.errors import UnreachableError
from common.grants import missing_roles
from common.schema import NEEDED_REVISION
from common.settings import Settings
from firstread.waiting import wait_until

REPOSITORY = Path(__file__).parent.parent


def migrate(settings: Settings, *, wait_s: float = 60) -> list[str]:
    """Wait for the database, migrate it, make the logins that have passwords, register bundles.

    Safe to repeat, and while services work.

    Returns:
        What was done, a sentence each.

    Raises:
        UnreachableError: the database does not answer in time.
        StorageUnavailableError: it went away; what was begun is undone.
        MigrationError: services held a table's locks at every try.
        ConfigurationError: this account may not make the logins.
    """
    engine = make_engine(settings.database_address(), pool_size=2, statement_timeout_s=600)
    try:
        wait_for_database(engine, wait_s)
        with storage_errors():
            before, after = upgrade(engine)
        done = [
            f"database at revision {after}"
            if before == after
            else f"database migrated from {before or 'nothing'} to {after}"
        ]
        done += _say_missing_roles(engine)
        done += _make_logins(engine, settings.login_passwords())
        from worker.registration import register_bundles

        with storage_errors(), make_sessions(engine).begin() as session:
            done += [
                f"{version.pipeline} model {version.name}@{version.version} registered"
                for version in register_bundles(session)
            ]
    finally:
        engine.dispose()
    return done


def _say_missing_roles(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        missing = missing_roles(connection)
    if not missing:
        return []
    statements = " ".join(f"CREATE ROLE {role} NOLOGIN;" for role in missing)
    return [
        "this account may not make the services' group roles, so nothing was granted to them: let "
        f"a superuser run `{statements}` and migrate again (docs/operations.md, logins)"
    ]


def _make_logins(engine: Engine, passwords: dict[str, str]) -> list[str]:
    if not passwords:
        return []
    from firstread.logins import make_service_logins

    with storage_errors(), engine.begin() as connection:
        driver = cast(psycopg.Connection, connection.connection.driver_connection)
        names = make_service_logins(driver, passwords)
    return [f"logins {', '.join(names)} may connect, each in its group"]


def wait_for_database(engine: Engine, timeout_s: float) -> None:
    """Wait until the database answers a query.

    Raises:
        UnreachableError: it does not in time; the message names the last reason.
    """
    reasons: list[str] = []

    def answers() -> bool:
        try:
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        except DBAPIError as error:
            reasons.append(str(error.orig).strip().splitlines()[0])
            return False
        return True

    if not wait_until(answers, timeout_s=timeout_s, pause_s=0.1):
        raise UnreachableError(f"The database does not answer: {reasons[-1]}")


def upgrade(
    engine: Engine, to: str = "head", *, tries: int | None = None
) -> tuple[str | None, str | None]:
    """Migrate while services work, one process at a time. Returns revision before and after.

    Raises:
        MigrationError: services held a table's locks at every try.
    """
    from alembic import command

    configuration = _configuration()
    configuration.attributes["engine"] = engine
    if tries is not None:
        configuration.attributes["tries"] = tries
    before = _revision(engine)
    if to == "head" and before is not None and before > NEEDED_REVISION:
        return before, before  # a newer version migrated it, and this one works with that
    command.upgrade(configuration, to)
    return before, _revision(engine)


def _revision(engine: Engine) -> str | None:
    with engine.connect() as connection:
        return current_revision(connection)


def current_revision(connection: Connection) -> str | None:
    """Give the revision that the database stands at; None: never migrated."""
    from alembic.migration import MigrationContext

    return MigrationContext.configure(connection).get_current_revision()


def _configuration():  # noqa: ANN202 - alembic is imported late: it costs every command 0.2 s
    from alembic.config import Config

    return Config(toml_file=str(REPOSITORY / "pyproject.toml"))
