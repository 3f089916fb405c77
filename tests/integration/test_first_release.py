"""The first release's services work on while its tables become today's, and after it."""

from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from time import monotonic, sleep

import pytest
from sqlalchemy import Engine, create_engine, insert, make_url, text
from sqlalchemy.exc import DBAPIError

from common.database import make_engine
from common.errors import MigrationError
from common.grants import DASHBOARD, LISTENER, WORKER
from common.schema import NEEDED_REVISION
from common.settings import Settings
from common.tables import ModelVersion
from firstread.migrate import upgrade
from tests.first_release.services import working
from tests.logins import as_member
from tests.waiting import eventually

FIRST = "0001"
LONGEST_WAIT_S = 4.0  # of a writer; the longest try of a migration, and a busy machine


@pytest.fixture
def first(empty_database_url: str) -> Iterator[Engine]:
    """Give a database as the first release made it, with a live model."""
    engine = make_engine(empty_database_url)
    assert upgrade(engine, FIRST) == (None, FIRST)
    with engine.begin() as connection:
        connection.execute(
            insert(ModelVersion).values(
                pipeline="chest_xray", name="first", version="1.0.0", bundle_sha256="0" * 64,
                folder="/nowhere", threshold=0.5, state="live",
            )
        )  # fmt: skip
    yield engine
    engine.dispose()


@pytest.fixture
def logins(first: Engine, tmp_path: Path) -> dict[str, str]:
    """Give the database's address for a login of each service."""
    owner = Settings.model_validate(
        {"home": tmp_path, "database_url": first.url.render_as_string(hide_password=False)}
    )
    return {
        service: make_url(as_member(owner, role).database_address())
        .set(drivername="postgresql")
        .render_as_string(hide_password=False)
        for service, role in (("listener", LISTENER), ("worker", WORKER), ("dashboard", DASHBOARD))
    }


def test_the_first_releases_services_work_while_tables_are_migrated_and_after(
    first: Engine, logins: dict[str, str]
) -> None:
    with working(logins) as release:

        def goes_on() -> bool:
            counts = [len(each) for each in (release.received, release.finished, release.read)]
            return eventually(
                lambda: (
                    bool(release.errors)
                    or all(
                        len(each) > before + 5
                        for each, before in zip(
                            (release.received, release.finished, release.read), counts, strict=True
                        )
                    )
                ),
                60,
            )

        assert goes_on()
        assert upgrade(first) == (FIRST, NEEDED_REVISION)
        assert goes_on()
    assert release.errors == []
    with first.connect() as connection:
        stored = connection.scalars(text("SELECT sop_instance_uid FROM instance")).all()
        done = connection.scalars(text("SELECT id FROM analysis WHERE state = 'done'")).all()
        astray = connection.scalars(
            text("SELECT id FROM analysis WHERE losses + late_results > 0 OR state = 'running'")
        ).all()
        audited = connection.scalar(
            text("SELECT count(*) FROM audit_event WHERE action = 'study_read'")
        )
    assert sorted(stored) == sorted(release.received)
    assert sorted(done) == sorted(release.finished)
    assert astray == []
    assert audited == len(release.read)


@pytest.mark.parametrize("revision", ["0001", "0002", "0003", "0004"])
def test_logins_get_what_there_is_at_every_revision(
    first: Engine, logins: dict[str, str], revision: str
) -> None:
    assert upgrade(first, revision)[1] == revision
    with working(logins) as release:
        assert eventually(lambda: len(release.read) > 2 or bool(release.errors), 60)
    assert release.errors == []


def test_a_migration_that_must_wait_makes_nobody_wait_and_gives_up_whole(first: Engine) -> None:
    others = create_engine(first.url)
    event = text("INSERT INTO audit_event (actor, action, detail) VALUES ('a', 'b', '{}')")
    failures: list[Exception] = []

    def migrate() -> None:
        try:
            upgrade(first, tries=6)
        except Exception as error:  # noqa: BLE001 - looked at below
            failures.append(error)

    with others.connect() as holding:
        holding.execute(event)  # and is not committed
        migrating = Thread(target=migrate)
        migrating.start()
        waits = []
        while migrating.is_alive():
            began = monotonic()
            with others.begin() as writing:
                writing.execute(event)
            waits.append(monotonic() - began)
            sleep(0.02)
        holding.rollback()
    assert [type(error) for error in failures] == [MigrationError]
    assert "waited too long for a lock 6 times" in str(failures[0])
    assert max(waits) < LONGEST_WAIT_S
    assert sum(wait > 0.1 for wait in waits) <= 6  # one a try
    assert upgrade(first) == (FIRST, NEEDED_REVISION)  # nothing was half done
    others.dispose()


def test_what_an_interrupted_migration_left_of_an_index_is_made_anew(first: Engine) -> None:
    upgrade(first, "0004")
    with first.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("INSERT INTO site VALUES (1, true) ON CONFLICT DO NOTHING"))
        connection.execute(
            text(
                "INSERT INTO patient (issuer_of_patient_id, patient_id, patient_id_stated, "
                "patient_name, patient_birth_date, patient_sex) VALUES ('', 'x', true, '', '', '')"
            )
        )
        with pytest.raises(DBAPIError, match="division by zero"):  # as a crash would leave it
            connection.execute(
                text(
                    "CREATE UNIQUE INDEX CONCURRENTLY ix_patient_patient_id_upper "
                    "ON patient ((1 / (length(patient_id) - 1)))"
                )
            )
    upgrade(first)
    with first.connect() as connection:
        valid = text(
            "SELECT indisvalid FROM pg_index "
            "WHERE indexrelid = 'ix_patient_patient_id_upper'::regclass"
        )
        assert connection.scalar(valid) is True
