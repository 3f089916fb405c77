"""Upgrade without downtime: migrate first, then change the services one by one.

So what runs must get on with the next schema: migrations only add, each bars one table in use at
most, and today's services work on through everything that a migration may add.
"""

import ast
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread

import pytest
from alembic import command
from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session, sessionmaker

from common.settings import Settings
from common.states import AnalysisState
from common.tables import Analysis, Instance
from tests.conftest import REPOSITORY
from tests.integration.listener.conftest import Listen, listen, radiograph, send
from tests.later_migrations import later_migrations
from tests.ledger import add_model, add_study
from tests.waiting import eventually
from tests.worker_parts import examine_anything, load_echo, make_bundle
from worker.registration import register
from worker.service import Service

__all__ = ["listen"]  # a fixture

MIGRATIONS = sorted((REPOSITORY / "alembic" / "versions").glob("0*.py"))


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
    found = [says for one in calls if (says := _break(one, added, tables))]
    barred = {table for one in calls for table in _barred(one)} - set(tables)
    return found + ([f"bars {', '.join(sorted(barred))} together"] if len(barred) > 1 else [])


def _barred(call: ast.Call) -> list[str]:
    """Name the tables that a call bars to writers until its migration's transaction ends."""
    match ast.unparse(call.func):
        case "op.add_column" | "op.alter_column":
            return [ast.literal_eval(call.args[0])]
        case "op.create_index" | "op.create_check_constraint" | "op.create_unique_constraint":
            return [ast.literal_eval(call.args[1])]
        case "op.create_foreign_key":
            return [ast.literal_eval(one) for one in call.args[1:3]]
        case "sa.ForeignKeyConstraint":
            targets = ast.literal_eval(call.args[1])
            return [target.partition(".")[0] for target in targets]
        case "op.execute":
            words = ast.unparse(call.args[0]).split()
            after = {"TABLE", "ON"} if "CONCURRENTLY" not in words else set()
            return [
                name.strip("'\"(,")
                for word, name in pairwise(words)
                if word in after and name.strip("'\"(,").isidentifier()
            ]
    return []


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
        words = says.upper()
        for harmless in (
            "DROP NOT NULL",
            "DROP TRIGGER IF EXISTS",
            "DROP INDEX CONCURRENTLY IF EXISTS",  # what an interrupted run left; then made anew
        ):
            words = words.replace(harmless, "")
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
        ("op.execute('DROP INDEX ix_study_patient_id')", False),
        ("op.execute('DROP INDEX CONCURRENTLY IF EXISTS ix_of_ours')", True),
        ("op.create_index('a', 'study', ['x']), op.create_index('b', 'study', ['y'])", True),
        ("op.create_index('a', 'study', ['x']), op.create_index('b', 'series', ['y'])", False),
        ("op.execute('CREATE INDEX a ON study (x)'), op.create_index('b', 'series', ['y'])", False),
        ("op.create_table('a', sa.ForeignKeyConstraint(['x'], ['study.id']))", True),
        (
            "op.create_table('a', sa.ForeignKeyConstraint(['x'], ['study.id'])), "
            "op.add_column('series', sa.Column('a', sa.Integer(), nullable=True))",
            False,
        ),
    ],
)
def test_what_only_adds_is_told_from_what_does_not(statement: str, is_well: bool) -> None:
    body = f"def upgrade():\n    {statement}\n"
    assert (breaks(body) == []) is is_well
    assert breaks(f"contract = True\n{body}") == []


# Everything that a migration may do to the tables of a release that goes on working.
TOMORROW = (
    "op.execute('ALTER TABLE instance ADD COLUMN tomorrow text')",
    "op.execute('ALTER TABLE analysis ADD COLUMN tomorrow integer NOT NULL DEFAULT 0')",
    "op.execute('ALTER TABLE study ADD COLUMN tomorrow timestamptz DEFAULT clock_timestamp()')",
    "op.execute('CREATE TABLE tomorrow (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, '\n"
    "           'instance_id bigint NOT NULL REFERENCES instance (id))')",
    "with op.get_context().autocommit_block():\n"
    "    op.execute('CREATE INDEX CONCURRENTLY ix_later ON analysis (pipeline, finished_at)')",
    "op.execute('CREATE INDEX ix_barring ON worklist_item (order_priority)')",
    "op.execute('ALTER TABLE worklist_item ADD COLUMN tomorrow boolean NOT NULL DEFAULT false')",
    "op.execute('ALTER TABLE patient ALTER COLUMN patient_name DROP NOT NULL')",
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
    listen: Listen,
    worker: Callable[[], int],
    sessions: sessionmaker[Session],
    engine: Engine,
    tmp_path: Path,
) -> None:
    settings = listen()
    later = later_migrations(tmp_path, *TOMORROW)
    later.attributes["engine"] = engine
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
    assert eventually(lambda: len(answers) >= 20, 60)
    for number in range(9001, 9001 + len(TOMORROW)):
        sent = len(answers)
        command.upgrade(later, str(number))
        assert eventually(lambda sent=sent: len(answers) > sent, 30), TOMORROW[number - 9001]
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


def test_in_a_circle_of_locks_the_migration_gives_way_and_never_the_writer(
    engine: Engine, sessions: sessionmaker[Session], settings: Settings, tmp_path: Path
) -> None:
    # No migration of ours bars two tables; one that did would meet a writer who goes the other way.
    with sessions.begin() as session:
        add_study(session, settings, model_version_id=add_model(session))
    later = later_migrations(
        tmp_path,
        "op.execute('ALTER TABLE patient ADD COLUMN later text')\n"
        "op.execute('ALTER TABLE study ADD COLUMN later text')",
    )
    later.attributes["engine"] = engine
    migrating = Thread(target=command.upgrade, args=(later, "head"))
    barred = text(
        "SELECT count(*) FROM pg_locks WHERE relation = 'patient'::regclass "
        "AND mode = 'AccessExclusiveLock' AND granted"
    )
    with sessions() as session, sessions() as watching:
        session.execute(text("UPDATE study SET study_date = '20260101'"))
        migrating.start()
        assert eventually(lambda: watching.execute(barred).scalar_one() == 1, 10, pause_s=0.005)
        session.execute(text("UPDATE patient SET patient_sex = 'F'"))  # what the migration holds
        session.commit()
    migrating.join()
    with sessions() as session:
        changed = session.execute(
            text("SELECT patient_sex, study_date, patient.later FROM patient, study")
        ).one()
    assert changed == ("F", "20260101", None)
