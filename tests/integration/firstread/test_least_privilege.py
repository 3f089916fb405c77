"""Each service does its work under a login of its own group role, and can do nothing else."""

from collections.abc import Iterator
from copy import deepcopy
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from sqlalchemy import create_engine, inspect, make_url, select, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session, sessionmaker
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

import dashboard
from common.database import make_engine, make_sessions
from common.grants import DASHBOARD, LISTENER, PRIVILEGES, ROLES, WORKER, grant_privileges
from common.queue import make_celery
from common.reading import mark_read
from common.settings import Settings
from common.states import AnalysisState
from common.tables import Analysis, AuditEvent, Instance, Reading, SetAside, Study, WorklistItem
from firstread.migrate import migrate
from tests.dashboard_process import dashboard_settings
from tests.integration.listener.conftest import free_port, radiograph, running_listener, send
from tests.integration.worker.conftest import Ledger
from tests.logins import as_member
from tests.scene import build_scene
from tests.worker_parts import examine_text, load_echo, make_bundle
from worker.registration import register
from worker.service import Service
from worker.upkeep import Upkeep

Sessions = sessionmaker[Session]


def revised(dataset: Dataset, **tags: object) -> Dataset:
    """Give the same object with other tags."""
    copy = deepcopy(dataset)
    for name, value in tags.items():
        setattr(copy, name, value)
    return copy


def test_the_listener_receives_under_its_role(settings: Settings, sessions: Sessions) -> None:
    own = as_member(settings, LISTENER).model_copy(
        update={"dicom_port": free_port(), "archive_reserve_bytes": 0}
    )
    first = radiograph(PatientName="")
    later = revised(
        first, SOPInstanceUID="2.25.98", PatientName="A^B", RequestedProcedurePriority="STAT"
    )
    other = revised(later, PatientID="P2")
    with running_listener(own):
        assert send(own, first, first, later) == [0, 0, 0]
        assert send(own, revised(other, SOPInstanceUID="2.25.99")) == [0xC001]
    with sessions() as session:
        assert len(session.scalars(select(Analysis)).all()) == 2
        assert session.scalars(select(WorklistItem)).one().band == 0
        assert len(session.scalars(select(SetAside)).all()) == 1


def test_the_worker_analyses_and_keeps_the_ledger_under_its_role(
    settings: Settings, sessions: Sessions, tmp_path: Path
) -> None:
    small = settings.model_copy(update={"worker_threads": 2, "decode_processes": 1})
    own = as_member(small, WORKER)
    bundle = make_bundle(tmp_path / "echo")
    with sessions.begin() as session:
        (version,) = register(session, [bundle], actor="test")
    ledger = Ledger(sessions, settings, bundle, version.id)
    done, refused, failed = ledger.queue("score 2.0", "ineligible", "unreadable")
    service = Service(own, load=load_echo, examine=examine_text)
    try:
        service.start()
        while service.analyst.serve():
            pass
    finally:
        service.stop()
    states = [ledger.row(key).state for key in (done, refused, failed)]
    assert states == [AnalysisState.DONE, AnalysisState.NOT_ELIGIBLE, AnalysisState.FAILED]
    with sessions.begin() as session:
        long_ago = Study.first_received_at - timedelta(hours=100)
        session.execute(
            Study.__table__.update().values(first_received_at=long_ago, last_received_at=long_ago)  # pyright: ignore[reportAttributeAccessIssue]
        )
        session.execute(text("UPDATE site SET ai_ranking = false"))
        read = session.get_one(Study, ledger.row(done).study_id)
        mark_read(session, read, "anna", settings, instances_seen=1)
        session.flush()
        session.execute(text("UPDATE reading SET read_at = read_at - interval '9 days'"))
    own = own.model_copy(update={"retain_by_itself": True, "retain_days": 1.0})
    engine = make_engine(own.database_address())
    upkeep = Upkeep(engine, make_sessions(engine), make_celery(own.broker_address()), own)
    for step in upkeep.steps:
        step()
    engine.dispose()
    with sessions() as session:
        items = session.scalars(select(WorklistItem).where(WorklistItem.listed)).all()
        deleted = session.scalars(select(Instance).where(Instance.file_removed_at.is_not(None)))
        assert [row.id for row in deleted] == [ledger.row(done).instance_id]
    assert len(items) == 2
    assert all(item.settled and item.band == 1 and not item.ai_ranked for item in items)


@pytest.fixture
def page(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Give the dashboard's process a login of its role."""
    with dashboard_settings(as_member(settings, DASHBOARD), monkeypatch):
        yield settings


def test_the_dashboards_pages_and_actions_work_under_its_role(
    page: Settings, sessions: Sessions
) -> None:
    uids = build_scene(sessions, page, (64, 64))
    app = str(Path(dashboard.__file__).with_name("app.py"))

    def run(name: str, **query: str) -> AppTest:
        test = AppTest.from_file(app, default_timeout=60)
        test._page_hash = calc_hash(name)  # AppTest knows only pages that are files
        for key, value in query.items():
            test.query_params[key] = value
        test.run()
        assert not test.exception
        return test

    def press(test: AppTest, key: str) -> None:
        test.button(key=key).click().run()
        assert not test.exception
        shown = "\n".join(str(element.proto.body) for element in test.get("html"))
        assert "does not answer" not in shown
        assert "went wrong" not in shown

    run("worklist")
    for name in uids:  # each kind of study is read, and what waits is raised
        test = run("study", study=uids[name])
        for key in ("do_claim", "priority_stat", "do_read"):
            if any(button.key == key and not button.disabled for button in test.button):
                press(test, key)
    press(run("operations"), "switch_ranking")
    with sessions() as session:
        actions = set(session.scalars(select(AuditEvent.action)))
        readings = session.scalars(select(Reading)).all()
    assert {"study_claimed", "study_read", "order_priority_changed", "ai_ranking_switched"} <= (
        actions
    )
    assert len(readings) >= len(uids) - 1


DENIED = [
    (DASHBOARD, "UPDATE analysis SET outcome = 'flagged'"),
    (DASHBOARD, "UPDATE analysis SET probability = 0"),
    (DASHBOARD, "UPDATE analysis SET state = 'queued'"),
    (DASHBOARD, "INSERT INTO analysis (study_id) VALUES (1)"),
    (DASHBOARD, "DELETE FROM analysis"),
    (DASHBOARD, "UPDATE worklist_item SET outcome = 'not_flagged'"),
    (DASHBOARD, "UPDATE worklist_item SET probability = 0"),
    (DASHBOARD, "UPDATE worklist_item SET leading_analysis_id = NULL"),
    (DASHBOARD, "UPDATE instance SET path = '/etc/passwd'"),
    (DASHBOARD, "UPDATE model_version SET state = 'live'"),
    (LISTENER, "INSERT INTO reading (study_id, state) VALUES (1, 'read')"),
    (LISTENER, "UPDATE reading SET state = 'read'"),
    (LISTENER, "UPDATE analysis SET outcome = 'flagged'"),
    (LISTENER, "UPDATE analysis SET state = 'done'"),
    (LISTENER, "UPDATE site SET ai_ranking = false"),
    (WORKER, "UPDATE reading SET state = 'read'"),
    (WORKER, "INSERT INTO reading (study_id, state) VALUES (1, 'read')"),
    (WORKER, "UPDATE study SET accession_number = ''"),
    (WORKER, "UPDATE model_version SET state = 'live'"),
    *(
        (role, statement)
        for role in ROLES
        for statement in (
            "UPDATE audit_event SET actor = 'x'",
            "DELETE FROM audit_event",
            "TRUNCATE audit_event",
            "ALTER TABLE audit_event DISABLE TRIGGER ALL",
            "DROP TABLE audit_event",
            "CREATE TABLE own (id int)",
            "DELETE FROM study",
            f"SET ROLE {'postgres'}",
        )
    ),
]


@pytest.mark.parametrize(("role", "statement"), DENIED)
def test_what_is_not_a_services_own_is_denied(
    settings: Settings, role: str, statement: str
) -> None:
    engine = make_engine(as_member(settings, role).database_address(), pool_size=1)
    with engine.connect() as connection, pytest.raises(ProgrammingError, match=r"denied|owner"):
        connection.execute(text(statement))
    engine.dispose()


def test_every_table_says_who_may_do_what(database_url: str) -> None:
    engine = create_engine(database_url)
    with engine.connect() as connection:
        assert set(inspect(connection).get_table_names()) == set(PRIVILEGES)
    engine.dispose()


def test_what_was_granted_by_hand_is_taken_back_by_the_next_migration(
    settings: Settings, database_url: str
) -> None:
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"GRANT UPDATE (outcome) ON analysis TO {DASHBOARD}")
    migrate(settings)
    may = text("SELECT has_column_privilege(:role, 'analysis', 'outcome', 'UPDATE')")
    with engine.connect() as connection:
        assert connection.scalar(may, {"role": DASHBOARD}) is False
        assert connection.scalar(may, {"role": WORKER}) is True
    engine.dispose()


def test_an_owner_who_may_make_no_roles_migrates_and_is_told_what_to_do(
    settings: Settings, empty_database_url: str
) -> None:
    name = make_url(empty_database_url).database
    admin = create_engine(empty_database_url, isolation_level="AUTOCOMMIT")
    renamed = {role: f"{role}_aside" for role in ROLES}
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE ROLE plain_owner LOGIN PASSWORD '{name}'")
        connection.exec_driver_sql(f"ALTER DATABASE {name} OWNER TO plain_owner")
        for role, aside in renamed.items():
            connection.exec_driver_sql(f"ALTER ROLE {role} RENAME TO {aside}")
    url = make_url(empty_database_url).set(username="plain_owner", password=name)
    owner = settings.model_copy(
        update={
            "database_url": Settings.model_validate(
                {"database_url": url.render_as_string(hide_password=False)}
            ).database_url
        }
    )
    try:
        said = "\n".join(migrate(owner))
        assert all(f"CREATE ROLE {role} NOLOGIN;" in said for role in ROLES)
    finally:
        with admin.connect() as connection:
            for role, aside in renamed.items():
                connection.exec_driver_sql(f"ALTER ROLE {aside} RENAME TO {role}")
    assert "CREATE ROLE" not in "\n".join(migrate(owner))
    with admin.connect() as connection:
        may = text("SELECT has_table_privilege(:role, 'reading', 'UPDATE')")
        assert connection.scalar(may, {"role": DASHBOARD}) is True
        assert connection.scalar(may, {"role": LISTENER}) is False
        grant_privileges(connection)  # again, by a superuser: safe
    admin.dispose()
