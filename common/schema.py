"""Which revision of the tables this version needs, and whether a database has it.

Older services work on newer tables, for migrations only add; newer services on older tables
would fail at the first statement that names what is not there, in the middle of their work.
"""

from sqlalchemy import Connection, Engine, text

from common.database import storage_errors
from common.errors import ConfigurationError

NEEDED_REVISION = "0005"  # of alembic/versions; they are numbered, so a later one is greater

_MAY_READ = "SELECT has_table_privilege(to_regclass('alembic_version'), 'SELECT')"


def require_schema(engine: Engine) -> None:
    """Ask the database whether it is new enough.

    Raises:
        ConfigurationError: it is not, or this login may not know; says what to run.
        StorageUnavailableError: it does not answer.
    """
    with storage_errors(), engine.connect() as connection:
        check_schema(connection)


def check_schema(connection: Connection) -> None:
    """Ask over a connection that is there already; raises what ``require_schema`` does."""
    may_read = connection.scalar(text(_MAY_READ))  # NULL: no such table
    if may_read is None:
        raise ConfigurationError("The database has no tables: run `firstread migrate`")
    if not may_read:
        raise ConfigurationError(
            "This login may not read the tables: put it into its service's group role "
            "(docs/operations.md, logins), then run `firstread migrate` as the owner"
        )
    found = connection.scalar(text("SELECT max(version_num) FROM alembic_version"))
    if found is None or found < NEEDED_REVISION:
        raise ConfigurationError(
            f"The database is at revision {found or 'none'}, this version of Firstread needs "
            f"{NEEDED_REVISION}: run `firstread migrate` of this version first; services of the "
            "version before work on meanwhile"
        )
