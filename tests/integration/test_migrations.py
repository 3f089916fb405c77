"""Migrations on a real Postgres: up, down, up again, and what they leave behind."""

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import DBAPIError

import common.commitment_tables  # its tables belong to what is compared
import common.search_indexes  # noqa: F401 - so do these indexes
from common.tables import Base
from tests.conftest import alembic_config


def test_the_ledger_goes_up_down_and_up_again(empty_database_url: str) -> None:
    engine = create_engine(empty_database_url)
    config = alembic_config()
    config.attributes["engine"] = engine
    command.upgrade(config, "head")
    assert inspect(engine).has_table("analysis")
    command.downgrade(config, "base")
    assert set(inspect(engine).get_table_names()) <= {"alembic_version"}
    command.upgrade(config, "head")
    assert inspect(engine).has_table("analysis")
    engine.dispose()


def test_migrations_and_tables_say_the_same(database_url: str) -> None:
    engine = create_engine(database_url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    engine.dispose()


@pytest.mark.parametrize(
    "statement", ["UPDATE audit_event SET actor = 'x'", "DELETE FROM audit_event"]
)
def test_audit_events_can_only_be_added(database_url: str, statement: str) -> None:
    engine = create_engine(database_url)
    with engine.connect() as connection, pytest.raises(DBAPIError, match="append-only"):
        connection.execute(text(statement))
    engine.dispose()
