"""How objects are registered beside what else happens to the same rows."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from threading import Event, Thread
from typing import Any

import pytest
from sqlalchemy import Engine, event, insert, literal_column, select, text, update
from sqlalchemy.exc import DataError
from sqlalchemy.orm import Session, sessionmaker

from common.lifecycle import activate
from common.settings import Settings
from common.states import ModelState
from common.tables import Analysis, ModelVersion, Patient, Study
from dicom_listener.clashes import Known, Received
from dicom_listener.group_commit import GroupCommit
from dicom_listener.ledger import Connection
from dicom_listener.prepared import Row
from dicom_listener.registering import Registered, Values
from dicom_listener.registrar import Registrar
from tests.group_turns import submit_in_turn
from tests.integration.common.lifecycle_doors import make_received, nothing_is_deleted
from tests.integration.listener.conftest import Listen, radiograph, send
from tests.ledger import add_model
from tests.waiting import eventually


@pytest.fixture
def registrar(engine: Engine, settings: Settings) -> Iterator[Registrar]:
    registrar = Registrar(engine, settings)
    yield registrar
    registrar.close()


def register(registrar: Registrar, received: Received) -> object:
    return registrar.register(received, nothing_is_deleted)


def prepared(connection: Connection) -> int:
    """Count what a connection has prepared."""
    query = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%$%'"
    row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def test_a_later_object_and_an_activation_do_not_wait_for_one_another_in_a_circle(
    registrar: Registrar, engine: Engine, sessions: sessionmaker[Session]
) -> None:
    with sessions.begin() as session:
        add_model(session)
    for number in (1, 2):
        assert isinstance(register(registrar, make_received("1.2", number)), Registered)
    with sessions.begin() as session:
        session.execute(update(ModelVersion).values(state=ModelState.RETIRED))
        newer = add_model(session)
        session.execute(
            update(ModelVersion).where(ModelVersion.id == newer).values(state=ModelState.CANDIDATE)
        )
        session.execute(
            update(ModelVersion).where(ModelVersion.id != newer).values(state=ModelState.LIVE)
        )
    # A STAT order moves the study, and with it the rows that the activation re-points.
    found: list[object] = []
    stat = make_received("1.2", 3, "STAT")
    registering = Thread(target=lambda: found.append(register(registrar, stat)))

    def amid(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:  # noqa: ANN401
        if statement.startswith("UPDATE analysis") and not registering.ident:
            registering.start()
            registering.join(2)

    event.listen(engine, "before_cursor_execute", amid)
    try:
        with sessions.begin() as session:
            activate(session, session.get_one(ModelVersion, newer))
    finally:
        event.remove(engine, "before_cursor_execute", amid)
    registering.join(10)
    assert len(found) == 1
    assert isinstance(found[0], Registered)
    assert count_analyses(sessions) == 3


def test_whatever_objects_say_a_connection_prepares_few_statements(registrar: Registrar) -> None:
    for number in range(12):
        for study in ("1.2", f"1.3.{number}"):
            received = make_received(study, number, ("", "STAT", "ROUTINE")[number % 3])
            received = replace(
                received,
                attributes=received.attributes._replace(
                    acquired_at=datetime(2026, 11, 27, tzinfo=UTC) if number % 2 else None,
                    instance_number=(None, 5, 40_000, 2_000_000_000)[number % 4],
                ),
                size_bytes=(7, 70_000, 1 << 40)[number % 3],
                pipeline=("chest_xray", "none")[number % 2],
            )
            assert isinstance(register(registrar, received), Registered)
            assert register(registrar, received) is Known.REPEAT
    assert registrar._ledger.write(prepared) <= 7
    assert registrar._shared.write(prepared) == 1


def test_what_others_prepared_on_a_connection_before_does_no_harm(
    registrar: Registrar, sessions: sessionmaker[Session]
) -> None:
    for _ in range(10):  # the driver prepares what it sees often
        with sessions() as session:
            session.execute(select(Study.id))
            session.commit()  # a rollback would have it forget
    received = [make_received(f"2.25.6{number}", 1) for number in range(4)]
    for one in received:
        assert isinstance(register(registrar, one), Registered)
        assert register(registrar, one) is Known.REPEAT  # it is rolled back


def test_a_server_that_forgot_what_was_prepared_is_told_again(registrar: Registrar) -> None:
    def forget(connection: Connection) -> None:
        connection.execute("DEALLOCATE ALL")

    for number in range(4):
        one = make_received(f"2.25.5{number}", 1)
        assert isinstance(register(registrar, one), Registered)
        assert register(registrar, one) is Known.REPEAT
        registrar._ledger.write(forget)
        registrar._shared.write(forget)


def test_whatever_a_group_met_with_each_object_is_registered_by_itself(
    registrar: Registrar, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(step: object) -> None:
        raise RuntimeError("nobody thought of this")

    register(registrar, make_received("2.25.1", 0))
    monkeypatch.setattr(registrar._shared, "write", fail)
    for number in range(3):
        assert isinstance(register(registrar, make_received(f"2.25.4{number}", 1)), Registered)


def count_analyses(sessions: sessionmaker[Session]) -> int:
    with sessions() as session:
        return len(session.scalars(select(Analysis.id)).all())


def gathered(
    registrar: Registrar, received: list[Received]
) -> tuple[list[object], list[list[str]]]:
    """Register objects of which all but the first wait until they can be done together.

    Gives what came of each, or its error, and the studies of each group.
    """
    register(registrar, make_received("2.25.1", 0))  # it tells the database's clock
    gate, groups = Event(), []

    def step(studies: Sequence[Values]) -> Sequence[Row | None]:
        assert gate.wait(10)
        groups.append([study["study_instance_uid"] for study in studies])
        return registrar._begin(studies)

    registrar._beginnings = together = GroupCommit(step, most=16)
    with ThreadPoolExecutor(len(received)) as threads:
        works = [partial(register, registrar, one) for one in received]
        working = submit_in_turn(threads, together, works)
        gate.set()
        return [one.exception(20) or one.result() for one in working], groups


def test_studies_that_begin_at_once_share_one_commit(
    registrar: Registrar, sessions: sessionmaker[Session]
) -> None:
    studies = [f"2.25.7{number}" for number in (3, 1, 4, 5, 2)]
    found, groups = gathered(registrar, [make_received(uid, 1) for uid in studies])
    assert all(isinstance(one, Registered) for one in found)
    assert groups == [studies[:1], studies[1:]]
    written = select(Analysis.id, Study.study_instance_uid, literal_column("study.xmin::text"))
    with sessions() as session:
        rows = {row[0]: row for row in session.execute(written.join(Study))}
    told = [rows[one.queued_analysis_id or 0] for one in found if isinstance(one, Registered)]
    assert [row[1] for row in told] == studies
    assert len({row[2] for row in told[1:]}) == 1
    assert told[0][2] != told[1][2]


def test_an_object_that_cannot_be_written_takes_nothing_from_those_it_came_with(
    registrar: Registrar, sessions: sessionmaker[Session]
) -> None:
    several = [make_received(f"2.25.8{number}", 1) for number in range(5)]
    unfit = several[2].attributes._replace(modality="longer than its column")
    several[2] = replace(several[2], attributes=unfit)
    found, groups = gathered(registrar, several)
    assert len(groups[1]) == 4
    assert isinstance(found[2], DataError)
    assert all(isinstance(one, Registered) for one in (found[0], found[1], found[3], found[4]))
    assert count_analyses(sessions) == 1 + 4


def test_who_waits_for_another_s_lock_waits_alone(
    registrar: Registrar, engine: Engine, sessions: sessionmaker[Session]
) -> None:
    several = [make_received(f"2.25.9{number}", 1) for number in range(5)]
    with engine.connect() as elsewhere, ThreadPoolExecutor(1) as threads:
        patient = {"issuer_of_patient_id": "", "patient_id": several[3].attributes.patient_id}
        elsewhere.execute(insert(Patient).values(**patient, patient_id_stated=True))
        working = threads.submit(gathered, registrar, several)
        assert eventually(lambda: count_analyses(sessions) == 1 + 4, 5), "the others wait with it"
        assert not working.done()
        elsewhere.rollback()
        found, _ = working.result(20)
    assert all(isinstance(one, Registered) for one in found)


def test_a_column_that_becomes_another_type_meanwhile_costs_nobody_an_object(
    listen: Listen, sessions: sessionmaker[Session]
) -> None:
    settings = listen()
    first = radiograph()
    of_study = partial(radiograph, StudyInstanceUID=first.StudyInstanceUID)
    assert send(settings, first, of_study(), of_study()) == [0, 0, 0]
    with sessions.begin() as session:
        session.execute(text("ALTER TABLE patient ALTER COLUMN patient_sex TYPE text"))
    assert send(settings, of_study(), radiograph()) == [0, 0]
