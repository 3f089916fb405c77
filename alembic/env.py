"""Run migrations against FIRSTREAD_DATABASE_URL, or the connection that the caller hands over."""

from alembic import context
from sqlalchemy import create_engine

from common.grants import grant_privileges
from common.settings import get_settings
from common.tables import Base


def run() -> None:
    """Migrate in one transaction, one process at a time."""
    connection = context.config.attributes.get("connection")
    if connection is not None:
        context.configure(connection=connection, target_metadata=Base.metadata)
        with context.begin_transaction():
            context.run_migrations()
            grant_privileges(connection)
        return
    engine = create_engine(get_settings().database_address())
    with engine.begin() as own:
        own.exec_driver_sql("SELECT pg_advisory_xact_lock(7265001)")  # two hosts may start at once
        context.configure(connection=own, target_metadata=Base.metadata)
        context.run_migrations()
        grant_privileges(own)
    engine.dispose()


run()
