"""Backpressure: an old queue keeps routine peers waiting, urgent ones only a full disk."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, func, select, update
from sqlalchemy.orm import Session, sessionmaker

from common.errors import StorageUnavailableError
from common.metrics import REGISTRY
from common.peers import Peer
from common.settings import Settings
from common.states import AnalysisState, Lane
from common.tables import Analysis, Instance
from dicom_listener.pressure import LOOK_EVERY_S, Pressure, is_urgent, queue_age_s
from tests.integration.listener.conftest import (
    Listen,
    free_port,
    radiograph,
    running_listener,
    send,
)
from tests.ledger import add_model, add_study
from tests.waiting import eventually

ALL = ("127.0.0.0/8",)
PEERS = (
    Peer.model_validate({"ae_title": "ED_CR", "addresses": ALL, "urgent": True}),
    Peer.model_validate({"ae_title": "*", "addresses": ALL}),
)
LIMIT_S = 300.0


def age(sessions: sessionmaker[Session], minutes: float) -> None:
    """Let what is queued have waited for so long."""
    with sessions.begin() as session:
        waited = func.clock_timestamp() - timedelta(minutes=minutes)
        session.execute(
            update(Analysis)
            .where(Analysis.state == AnalysisState.QUEUED)
            .values(queued_at=waited)
            .execution_options(synchronize_session=False)
        )


def refused(reason: str) -> float:
    labels = {"status": "0xA700", "reason": reason}
    return REGISTRY.get_sample_value("firstread_objects_refused_total", labels) or 0


def test_an_old_queue_refuses_routine_peers_alone_until_it_is_drained(
    listen: Listen, sessions: sessionmaker[Session], settings: Settings
) -> None:
    with sessions.begin() as session:
        add_study(session, settings, model_version_id=add_model(session))
    running = listen(dicom_peers=PEERS, refuse_when_queue_older_s=LIMIT_S)
    assert send(running, radiograph(), ae_title="WARD_CR") == [0x0000]
    age(sessions, 6)
    before = refused("queue_age")

    def answer(ae_title: str) -> int:
        return send(running, radiograph(), ae_title=ae_title)[0]

    assert eventually(lambda: answer("WARD_CR") == 0xA700, 4 * LOOK_EVERY_S)
    assert answer("ED_CR") == 0x0000
    assert refused("queue_age") > before
    assert REGISTRY.get_sample_value("firstread_backpressure") == 1
    with sessions() as session:
        kept = session.scalars(select(Instance.source_ae_title)).all()
    assert kept.count("ED_CR") == 1
    with sessions.begin() as session:  # a worker takes everything
        session.execute(
            update(Analysis)
            .where(Analysis.state == AnalysisState.QUEUED)
            .values(state=AnalysisState.NOT_ELIGIBLE, reasons=["test"])
        )
    assert eventually(lambda: answer("WARD_CR") == 0x0000, 4 * LOOK_EVERY_S)
    assert answer("ED_CR") == 0x0000


def test_below_the_disk_reserve_urgent_peers_are_refused_too(listen: Listen) -> None:
    running = listen(dicom_peers=PEERS, archive_reserve_bytes=1 << 62)
    before = refused("archive")
    for ae_title in ("ED_CR", "WARD_CR"):
        assert send(running, radiograph(), ae_title=ae_title) == [0xA700]
    assert refused("archive") == before + 2


def test_without_a_limit_nobody_asks_for_the_age(
    settings: Settings, listen: Listen, sessions: sessionmaker[Session]
) -> None:
    with sessions.begin() as session:
        add_study(session, settings, model_version_id=add_model(session))
    age(sessions, 600)
    running = listen(dicom_peers=PEERS)
    assert send(running, radiograph(), ae_title="WARD_CR") == [0x0000]


def test_it_opens_again_only_well_below_the_limit(settings: Settings) -> None:
    ages = iter([299.0, 301.0, 290.0, 151.0, 149.0, 299.0])
    limited = settings.model_copy(update={"refuse_when_queue_older_s": 300.0})
    pressure = Pressure(limited, lambda: next(ages))
    seen = []
    for _ in range(6):
        pressure.look()
        seen.append(pressure.refuses("WARD_CR", "192.0.2.1"))
    assert seen == [False, True, True, True, False, False]


def test_while_the_database_is_away_the_decision_stands(settings: Settings) -> None:
    limited = settings.model_copy(update={"refuse_when_queue_older_s": 300.0})
    answers: list[float | StorageUnavailableError] = [400.0, StorageUnavailableError("away")]

    def age_s() -> float:
        answer = answers.pop(0)
        if isinstance(answer, StorageUnavailableError):
            raise answer
        return answer

    pressure = Pressure(limited, age_s)
    pressure.look()
    pressure.look()
    assert answers == []
    assert pressure.refuses("WARD_CR", "192.0.2.1")


@pytest.mark.parametrize(
    "elsewhere", [{"lane": Lane.BACKFILL}, {"model_version_id": None}, {"state": "running"}]
)
def test_priors_and_work_without_a_model_make_no_pressure(
    elsewhere: dict[str, Any], sessions: sessionmaker[Session], settings: Settings
) -> None:
    with sessions.begin() as session:
        add_study(session, settings, model_version_id=add_model(session))
    age(sessions, 60)
    assert queue_age_s(sessions) == pytest.approx(3600, abs=60)
    if "state" in elsewhere:
        elsewhere = {"state": AnalysisState.RUNNING, "lease_until": func.clock_timestamp()}
    with sessions.begin() as session:
        session.execute(update(Analysis).values(**elsewhere))
    assert queue_age_s(sessions) == 0


def test_the_first_rule_that_fits_says_who_is_urgent(settings: Settings) -> None:
    site = settings.model_copy(update={"dicom_peers": PEERS})
    assert is_urgent("ED_CR", "127.0.0.1", site)
    assert is_urgent("ED_CR ", "::ffff:127.0.0.1", site)
    assert not is_urgent("WARD_CR", "127.0.0.1", site)
    assert not is_urgent("ED_CR", "192.0.2.1", site)


def test_an_object_costs_no_question_for_the_age(
    settings: Settings, sessions: sessionmaker[Session]
) -> None:
    asked: list[str] = []
    values = {
        "dicom_port": free_port(),
        "archive_reserve_bytes": 0,
        "dicom_peers": PEERS,
        "refuse_when_queue_older_s": LIMIT_S,
    }
    changed = settings.model_copy(update=values)
    with running_listener(changed) as listener:
        event.listen(
            listener._engine,
            "before_cursor_execute",
            lambda _, __, statement, *___: asked.append(statement),
        )
        assert send(changed, *(radiograph() for _ in range(20))) == [0x0000] * 20
    assert sum("min(analysis.queued_at)" in statement for statement in asked) <= 2
