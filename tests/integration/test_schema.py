"""New services never run on old tables; old ones on new tables do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session, sessionmaker
from streamlit.testing.v1 import AppTest

import dashboard
from common.database import make_engine
from common.errors import ConfigurationError
from common.grants import LISTENER, WORKER
from common.schema import NEEDED_REVISION, require_schema
from common.settings import Settings
from common.tables import Study
from firstread.doctor import examine
from firstread.migrate import upgrade
from tests.conftest import REPOSITORY, alembic_config
from tests.dashboard_process import dashboard_settings
from tests.integration.listener.conftest import free_port, radiograph, running_listener, send
from tests.logins import as_member

BEFORE = f"{int(NEEDED_REVISION) - 1:04}"


@pytest.fixture
def old(engine: Engine) -> Engine:
    """Give the database as the version before left it."""
    config = alembic_config()
    config.attributes["engine"] = engine
    command.downgrade(config, BEFORE)
    return engine


@pytest.fixture
def newer(engine: Engine) -> Engine:
    """Give the database as a later version leaves it."""
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9001'"))
        connection.execute(text("ALTER TABLE study ADD COLUMN later text"))
    return engine


def test_this_version_needs_the_newest_of_its_migrations() -> None:
    assert ScriptDirectory.from_config(alembic_config()).get_current_head() == NEEDED_REVISION


@pytest.mark.parametrize("service", ["listen", "work", "beat", "worklist"])
def test_a_service_on_older_tables_ends_at_once_and_says_what_to_run(
    settings: Settings, old: Engine, service: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "firstread", service],
        env={
            **os.environ,
            "FIRSTREAD_HOME": str(settings.home),
            "FIRSTREAD_DATABASE_URL": settings.database_address(),
            "FIRSTREAD_BROKER_URL": settings.broker_address(),
            "FIRSTREAD_DICOM_PORT": str(free_port()),
        },
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2, ended.stderr
    assert f"at revision {BEFORE}, this version of Firstread needs {NEEDED_REVISION}" in (
        ended.stderr
    )
    assert "run `firstread migrate`" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_page_on_older_tables_says_so_and_works_once_they_are_migrated(
    settings: Settings, old: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def page() -> str:
        app = str(Path(dashboard.__file__).with_name("app.py"))
        test = AppTest.from_file(app, default_timeout=60).run()
        assert not test.exception
        return "\n".join(str(element.proto.body) for element in test.get("html"))

    with dashboard_settings(settings, monkeypatch):
        assert f"needs {NEEDED_REVISION}: run `firstread migrate`" in page()
        upgrade(old)
        assert "firstread migrate" not in page()


def test_this_version_works_on_newer_tables_and_does_not_migrate_them(
    settings: Settings, newer: Engine, sessions: sessionmaker[Session]
) -> None:
    assert upgrade(newer) == ("9001", "9001")
    listening = as_member(settings, LISTENER).model_copy(
        update={"dicom_port": free_port(), "archive_reserve_bytes": 0}
    )
    with running_listener(listening):
        assert send(listening, radiograph()) == [0]
    with sessions() as session:
        assert session.query(Study).count() == 1
    (said,) = [each for each in examine(settings) if each.subject == "migrations"]
    assert said.ok
    assert "newer than this version" in said.says


def test_a_login_that_was_granted_nothing_is_told_so(settings: Settings, engine: Engine) -> None:
    own = as_member(settings, WORKER)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"REVOKE ALL ON alembic_version FROM {WORKER}")
    member = make_engine(own.database_address())
    with pytest.raises(ConfigurationError, match="group role"):
        require_schema(member)
    member.dispose()
