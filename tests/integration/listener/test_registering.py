"""How objects are registered beside what else happens to the same rows."""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import Engine, event, select, text, update
from sqlalchemy.orm import Session, sessionmaker

from common.lifecycle import activate
from common.settings import Settings
from common.states import ModelState
from common.tables import Analysis, ModelVersion
from dicom_listener.clashes import Known, Received
from dicom_listener.ledger import Connection, Ledger
from dicom_listener.recent import Recent
from dicom_listener.registering import Registered, register
from tests.integration.common.lifecycle_doors import make_received
from tests.integration.listener.conftest import Listen, radiograph, send
from tests.ledger import add_model


class Registrar:
    """Register objects over a ledger's connections, as the listener does."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.ledger = Ledger(engine)
        self.settings = settings
        self.recent = Recent()

    def register(self, received: Received) -> object:
        def step(connection: Connection) -> object:
            found = register(connection, received, self.settings, self.recent)
            connection.commit()
            return found

        return self.ledger.write(step)

    def prepared(self) -> int:
        """Count what the one connection has prepared."""

        def step(connection: Connection) -> int:
            query = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%$%'"
            row = connection.execute(query).fetchone()
            assert row is not None
            return row[0]

        return self.ledger.write(step)


@pytest.fixture
def registrar(engine: Engine, settings: Settings) -> Iterator[Registrar]:
    registrar = Registrar(engine, settings)
    yield registrar
    registrar.ledger.close()


def test_a_later_object_and_an_activation_do_not_wait_for_one_another_in_a_circle(
    registrar: Registrar, engine: Engine, sessions: sessionmaker[Session]
) -> None:
    with sessions.begin() as session:
        add_model(session)
    for number in (1, 2):
        assert isinstance(registrar.register(make_received("1.2", number)), Registered)
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
    registering = Thread(target=lambda: found.append(registrar.register(stat)))

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
    with sessions() as session:
        assert len(session.scalars(select(Analysis.id)).all()) == 3


def test_whatever_objects_say_a_connection_prepares_few_statements(registrar: Registrar) -> None:
    for number in range(12):
        for study in ("1.2", f"1.3.{number}"):
            received = make_received(study, number, ("", "STAT", "ROUTINE")[number % 3])
            attributes = received.attributes
            changed = {
                "acquired_at": datetime(2026, 11, 27, tzinfo=UTC) if number % 2 else None,
                "instance_number": (None, 5, 40_000, 2_000_000_000)[number % 4],
            }
            vars(attributes).update(changed)
            vars(received).update(
                size_bytes=(7, 70_000, 1 << 40)[number % 3],
                pipeline=("chest_xray", "none")[number % 2],
            )
            assert isinstance(registrar.register(received), Registered)
            assert registrar.register(received) is Known.REPEAT
    assert registrar.prepared() <= 8


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
