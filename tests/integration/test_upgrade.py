"""Upgrade without downtime: migrate first, then change the services one by one.

So what runs must get on with the next schema. Three tests hold that: migrations only add, the
first release's statements work on today's tables while these are migrated, and today's services
work on through everything that a migration may add.
"""

import ast
import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from alembic import command
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import (
    Connection,
    Engine,
    MetaData,
    create_engine,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from common.database import make_engine
from common.settings import Settings
from common.states import AnalysisState
from common.tables import Analysis, Instance
from tests.conftest import REPOSITORY, alembic_config
from tests.e2e.running import eventually
from tests.integration.listener.conftest import Listen, listen, radiograph, send
from tests.worker_parts import examine_anything, load_echo, make_bundle
from worker.registration import register
from worker.service import Service

__all__ = ["listen"]  # a fixture

MIGRATIONS = sorted((REPOSITORY / "alembic" / "versions").glob("0*.py"))
FIRST_RELEASE = "0001"
NOW = datetime.now(UTC)
numbers = count(1)


def breaks(source: str) -> list[str]:
    """Name what in a migration's upgrade a service of the release before could not bear.

    A migration that says ``contract = True`` takes away what a release no longer uses, one
    release after the code that stopped using it.
    """
    tree = ast.parse(source)
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node) == "contract = True":
            return []
    upgrade = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "upgrade")
    calls = [n for n in ast.walk(upgrade) if isinstance(n, ast.Call)]
    added = [
        one.value
        for call in calls
        if ast.unparse(call.func) == "op.add_column"
        for one in ast.walk(call)
        if isinstance(one, ast.Constant) and isinstance(one.value, str)
    ]
    added += [  # names that a loop goes through
        one.value
        for loop in ast.walk(upgrade)
        if isinstance(loop, ast.For)
        for one in ast.walk(loop.iter)
        if isinstance(one, ast.Constant) and isinstance(one.value, str)
    ]
    tables = [
        str(ast.literal_eval(one.args[0]))
        for one in calls
        if ast.unparse(one.func) == "op.create_table"
    ]
    return [found for one in calls if (found := _break(one, added, tables))]


def _break(call: ast.Call, added: list[str], tables: list[str]) -> str:
    name, says = ast.unparse(call.func), ast.unparse(call)
    keywords = {one.arg: ast.unparse(one.value) for one in call.keywords}
    if name.startswith(("op.drop_", "op.rename_")):
        return says
    if name == "op.alter_column" and keywords.keys() & {"nullable", "new_column_name", "type_"}:
        return "" if keywords == {"nullable": "True"} else says
    if name == "op.add_column":
        is_optional = "nullable=True" in says or "server_default" in says
        return "" if is_optional else says
    if name in ("op.create_check_constraint", "op.create_unique_constraint"):
        on_new = ast.literal_eval(call.args[1]) in tables
        return "" if on_new or any(column in says for column in added) else says
    if name == "op.execute":
        words = says.upper().replace("DROP NOT NULL", "").replace("DROP TRIGGER IF EXISTS", "")
        risky = ("DROP ", "RENAME ", "TRUNCATE ", "SET NOT NULL", "DELETE FROM")
        is_function = "CREATE FUNCTION" in words or "CREATE OR REPLACE FUNCTION" in words
        return says if any(word in words for word in risky) and not is_function else ""
    return ""


@pytest.mark.parametrize("path", MIGRATIONS[1:], ids=lambda path: path.stem)
def test_a_migration_only_adds(path: Path) -> None:
    assert breaks(path.read_text()) == []


@pytest.mark.parametrize(
    ("statement", "is_well"),
    [
        ("op.drop_column('study', 'study_date')", False),
        ("op.rename_table('study', 'exam')", False),
        ("op.alter_column('study', 'study_date', nullable=False)", False),
        ("op.alter_column('study', 'study_date', new_column_name='date')", False),
        ("op.alter_column('study', 'acquired_at', nullable=True)", True),
        ("op.add_column('study', sa.Column('a', sa.Integer(), nullable=False))", False),
        ("op.add_column('study', sa.Column('a', sa.Integer(), nullable=True))", True),
        ("op.create_check_constraint('x', 'study', 'patient_age <> 0')", False),
        ("op.execute('ALTER TABLE study DROP COLUMN study_date')", False),
        ("op.execute('CREATE INDEX x ON study (study_date)')", True),
    ],
)
def test_what_only_adds_is_told_from_what_does_not(statement: str, is_well: bool) -> None:
    body = f"def upgrade():\n    {statement}\n"
    assert (breaks(body) == []) is is_well
    assert breaks(f"contract = True\n{body}") == []


def release_statements(tables: MetaData, connection: Connection) -> int:
    """Do what the first release's services do, with its columns alone. Returns the study's id."""
    number = next(numbers)
    digest = hashlib.sha256(str(number).encode()).digest()
    uid = f"2.25.77{number}"

    def add(name: str, returning: str = "id", **values: Any) -> int:  # noqa: ANN401
        table = tables.tables[name]
        return connection.execute(
            insert(table).values(**values).returning(table.c[returning])
        ).scalar_one()

    source = {"source_ae_title": "CR1"}
    texts = ("accession_number", "study_description", "study_date", "study_time", "patient_age",
             "requested_procedure_priority", "study_priority_id")  # fmt: skip
    patient_id = add(
        "patient", issuer_of_patient_id="", patient_id=uid, patient_id_stated=True,
        patient_name="", patient_birth_date="", patient_sex="",
    )  # fmt: skip
    study_id = add(
        "study", patient_id=patient_id, study_instance_uid=uid, **source,
        first_received_at=NOW, last_received_at=NOW, **dict.fromkeys(texts, ""),
    )  # fmt: skip
    series_id = add(
        "series", study_id=study_id, series_instance_uid=f"{uid}.1", modality="DX",
        body_part_examined="", series_description="",
    )  # fmt: skip
    instance_id = add(
        "instance", series_id=series_id, sop_instance_uid=f"{uid}.1.1", sop_class_uid="1.2",
        transfer_syntax_uid="1.2", view_position="", path=uid, size_bytes=1, sha256=digest,
        source_address="192.0.2.1", received_at=NOW, **source,
    )  # fmt: skip
    analysis_id = add(
        "analysis", study_id=study_id, instance_id=instance_id, pipeline="chest_xray", run=0,
        inputs_sha256=digest, purpose="live", state="queued", lane=0, band=2, due_at=NOW,
        attempt=0, failures=0, losses=0, late_results=0, reasons=[], received_at=NOW,
        queued_at=NOW,
    )  # fmt: skip
    add(
        "worklist_item", "study_id", study_id=study_id, listed=True, prior=False, settled=False,
        final=False, outcome="pending", images=0, new_image_since_read=False, ai_ranked=True,
        band=2, due_at=NOW, order_priority="routine", order_priority_source="default", reason="x",
    )  # fmt: skip
    add("reading", "study_id", study_id=study_id, state="unread", reported_elsewhere=False)
    add("audit_event", actor="reader", action="study_opened", detail={})
    add(
        "set_aside", sop_instance_uid=f"{uid}.2", study_instance_uid=uid, sha256=digest,
        kind="revision", path=uid, size_bytes=1, source_address="192.0.2.1", received_at=NOW,
        **source,
    )  # fmt: skip
    analysis = tables.tables["analysis"]
    ours = analysis.c.id == analysis_id
    connection.execute(
        update(analysis).where(ours).values(state="running", attempt=1, lease_until=NOW)
    )
    connection.execute(
        update(analysis).where(ours).values(
            state="not_eligible", reasons=["x"], lease_until=None, finished_at=NOW
        )
    )  # fmt: skip
    for name in ("patient", "study", "series", "instance", "analysis", "worklist_item", "reading",
                 "site", "model_version"):  # fmt: skip
        connection.execute(select(tables.tables[name]).limit(5)).all()
    return study_id


def _make_first_release(connection: Connection) -> None:
    """Make its tables and nothing else: what logins may do is granted for today's tables alone."""
    scripts = ScriptDirectory.from_config(alembic_config())
    context = MigrationContext.configure(connection)
    with Operations.context(context):
        scripts.get_revision(FIRST_RELEASE).module.upgrade()
    context.stamp(scripts, FIRST_RELEASE)


def test_the_first_releases_statements_work_while_tables_are_migrated_and_after(
    empty_database_url: str,
) -> None:
    engine = make_engine(empty_database_url)
    try:
        _work_through_a_migration(engine)
    finally:
        engine.dispose()


def _work_through_a_migration(engine: Engine) -> None:
    with engine.begin() as connection:
        _make_first_release(connection)
    tables = MetaData()
    tables.reflect(engine)
    stopped, errors = Event(), []
    committed: list[int] = []

    def work() -> None:
        while not stopped.is_set():
            try:
                with engine.begin() as connection:
                    study_id = release_statements(tables, connection)
                committed.append(study_id)
            except OperationalError:
                continue  # a circle of locks with the migration: services answer "later"
            except Exception as error:  # noqa: BLE001 - any other is a finding
                errors.append(error)

    threads = [Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        assert eventually(lambda: len(committed) >= 10 or errors, 30)
        _migrate(engine)
        after = len(committed)
        assert eventually(lambda: len(committed) >= after + 10 or errors, 30)
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
    assert errors == []
    with engine.connect() as connection:
        found = connection.execute(text("SELECT id FROM study ORDER BY id")).scalars().all()
    assert found == sorted(committed)


def _migrate(engine: Engine) -> None:
    """Migrate as an operator does: again, if it was the migration that gave way."""
    config = alembic_config()
    for _ in range(5):
        try:
            with engine.begin() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except OperationalError:
            continue
        return
    pytest.fail("five migrations gave way")


# Everything that a migration may do to the tables of a release that goes on working.
TOMORROW = (
    "ALTER TABLE instance ADD COLUMN tomorrow text",
    "ALTER TABLE analysis ADD COLUMN tomorrow integer NOT NULL DEFAULT 0",
    "ALTER TABLE study ADD COLUMN tomorrow timestamptz DEFAULT clock_timestamp()",
    "CREATE TABLE tomorrow (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
    "instance_id bigint NOT NULL REFERENCES instance (id))",
    "CREATE INDEX ix_tomorrow ON analysis (pipeline, finished_at)",
    "ALTER TABLE worklist_item ADD COLUMN tomorrow boolean NOT NULL DEFAULT false",
    "ALTER TABLE patient ALTER COLUMN patient_name DROP NOT NULL",
)


@pytest.fixture
def worker(
    settings: Settings, sessions: sessionmaker[Session], tmp_path: Path
) -> Iterator[Callable[[], int]]:
    """Run a worker whose model answers at once; gives how to work off what waits."""
    with sessions.begin() as session:
        register(session, [make_bundle(tmp_path / "bundle")], actor="test")
    small = {"worker_threads": 2, "decode_processes": 1, "max_batch": 4}
    service = Service(settings.model_copy(update=small), load=load_echo, examine=examine_anything)
    service.start()
    yield service.analyst.serve
    service.stop()


def test_todays_listener_and_worker_work_on_while_tomorrows_tables_are_made(
    listen: Listen, worker: Callable[[], int], sessions: sessionmaker[Session], database_url: str
) -> None:
    settings = listen()
    stopped = Event()
    answers: dict[str, int] = {}

    def sending() -> None:
        while not stopped.is_set():
            objects = [radiograph() for _ in range(5)]
            found = send(settings, *objects)
            answers.update(
                (str(one.SOPInstanceUID), status)
                for one, status in zip(objects, found, strict=True)
            )

    def working() -> None:
        while not stopped.is_set():
            if not worker():
                stopped.wait(0.02)

    threads = [Thread(target=sending) for _ in range(2)] + [Thread(target=working)]
    for thread in threads:
        thread.start()
    engine = create_engine(database_url)
    assert eventually(lambda: len(answers) >= 20, 60)
    for statement in TOMORROW:
        sent = len(answers)
        with engine.begin() as connection:
            connection.execute(text(statement))
        assert eventually(lambda sent=sent: len(answers) > sent, 30), statement
    engine.dispose()
    stopped.set()
    for thread in threads:
        thread.join()
    while worker():
        pass
    assert set(answers.values()) == {0x0000}
    with sessions() as session:
        stored = session.scalars(select(Instance.sop_instance_uid)).all()
        ends = dict(
            session.execute(select(Analysis.state, func.count()).group_by(Analysis.state)).all()
        )
    assert sorted(stored) == sorted(answers)
    assert ends == {AnalysisState.DONE: len(answers)}
