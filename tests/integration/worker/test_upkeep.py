"""Upkeep's steps on a real Postgres and Redis."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from celery import Celery
from sqlalchemy import Engine, func, select, text, update
from sqlalchemy.orm import Session, sessionmaker

from common.lifecycle import claim
from common.queue import make_celery, ring, waiting_rings
from common.reading import switch_ai_ranking
from common.settings import Settings
from common.states import AnalysisState, ModelState, Outcome
from common.tables import Analysis, ModelVersion, Study, WorklistItem
from tests.ledger import add_image, add_model, add_study
from worker.upkeep import UPKEEP_LOCK, Upkeep


@pytest.fixture
def celery(broker_url: str) -> Iterator[Celery]:
    app = make_celery(broker_url)
    yield app
    app.close()


@pytest.fixture
def upkeep(
    engine: Engine, sessions: sessionmaker[Session], celery: Celery, settings: Settings
) -> Upkeep:
    return Upkeep(engine, sessions, celery, settings)


def add(sessions: sessionmaker[Session], settings: Settings, **about: object) -> tuple[int, int]:
    """Add a study with one queued image; gives the study's id and the model version's."""
    with sessions.begin() as session:
        model = session.scalar(select(ModelVersion.id)) or add_model(session)
        study = add_study(session, settings, model_version_id=model, **about)  # pyright: ignore
        return study.id, model


def item(sessions: sessionmaker[Session], study_id: int) -> WorklistItem:
    with sessions() as session:
        return session.get_one(WorklistItem, study_id)


def test_an_expired_lease_goes_back_to_the_queue_and_counts_as_a_loss(
    upkeep: Upkeep, sessions: sessionmaker[Session], settings: Settings
) -> None:
    _, model = add(sessions, settings)
    with sessions.begin() as session:
        assert claim(session, worker="gone", model_version_ids=[model], lease_s=-1)
    assert upkeep.run()
    with sessions() as session:
        row = session.scalars(select(Analysis)).one()
        assert (row.state, row.losses, row.failures) == (AnalysisState.QUEUED, 1, 0)


def test_a_study_settles_when_nothing_came_for_a_while_and_a_late_image_reopens_it(
    upkeep: Upkeep, sessions: sessionmaker[Session], settings: Settings
) -> None:
    quiet, model = add(sessions, settings, received_before=timedelta(seconds=121))
    busy, _ = add(sessions, settings, received_before=timedelta(seconds=60))
    assert upkeep.settle_studies() == 1
    assert upkeep.settle_studies() == 0
    assert (item(sessions, quiet).settled, item(sessions, busy).settled) == (True, False)
    assert not item(sessions, quiet).final  # its image is still queued
    with sessions.begin() as session:
        add_image(session, settings, session.get_one(Study, quiet), model_version_id=model)
    assert not item(sessions, quiet).settled


def test_a_study_past_its_cap_moves_to_the_urgent_band_and_so_does_its_work(
    upkeep: Upkeep, sessions: sessionmaker[Session], settings: Settings
) -> None:
    waiting, _ = add(sessions, settings, received_before=timedelta(hours=71.9))
    fresh, _ = add(sessions, settings)
    with sessions.begin() as session:
        session.execute(
            update(Study)
            .where(Study.id == waiting)
            .values(first_received_at=func.clock_timestamp() - timedelta(hours=73))
        )
    assert upkeep.promote_studies() == 1
    assert upkeep.promote_studies() == 0
    assert (item(sessions, waiting).band, item(sessions, fresh).band) == (1, 2)
    with sessions() as session:
        rows = session.execute(select(Analysis.study_id, Analysis.band)).all()
    assert {row.study_id: row.band for row in rows} == {waiting: 1, fresh: 2}


def test_studies_follow_the_switch_of_ai_ranking(
    upkeep: Upkeep, sessions: sessionmaker[Session], settings: Settings
) -> None:
    study_id, _ = add(sessions, settings)
    with sessions.begin() as session:
        session.execute(
            update(Analysis).values(
                state=AnalysisState.DONE, score=3, probability=0.95, outcome=Outcome.FLAGGED
            )
        )
        switch_ai_ranking(session, "somebody", on=False)
    with sessions.begin() as session:
        session.execute(update(WorklistItem).values(ai_ranked=True, band=1))
    assert upkeep.rerank_studies() == 1
    assert (item(sessions, study_id).band, item(sessions, study_id).ai_ranked) == (2, False)
    assert upkeep.rerank_studies() == 0


def test_work_queued_under_a_retired_version_follows_the_live_one(
    upkeep: Upkeep, sessions: sessionmaker[Session], settings: Settings
) -> None:
    add(sessions, settings)
    with sessions.begin() as session:
        session.execute(update(ModelVersion).values(state=ModelState.RETIRED))
        session.flush()
        live = add_model(session)
    assert upkeep.follow_live_models() == 1
    assert upkeep.follow_live_models() == 0
    with sessions() as session:
        assert session.scalar(select(Analysis.model_version_id)) == live


def test_every_worker_that_holds_work_is_rung_for(
    upkeep: Upkeep, sessions: sessionmaker[Session], settings: Settings, celery: Celery
) -> None:
    with sessions.begin() as session:
        model = add_model(session)
        add_study(session, settings, model_version_id=model, images=40)
    for worker in ("host1:1", "host2:1", "host2:1"):
        with sessions.begin() as session:
            assert claim(session, worker=worker, model_version_ids=[model], lease_s=60)
    assert upkeep.ring_for_work() == 2 * settings.worker_threads
    assert upkeep.ring_for_work() == 0
    assert waiting_rings(celery) == 2 * settings.worker_threads


def test_no_more_is_rung_than_waits_or_one_worker_can_take(
    upkeep: Upkeep, sessions: sessionmaker[Session], settings: Settings, celery: Celery
) -> None:
    assert upkeep.ring_for_work() == 0
    model = max(add(sessions, settings)[1] for _ in range(3))
    assert ring(celery, 1)
    assert upkeep.ring_for_work() == 2  # one of three is rung for already
    assert upkeep.ring_for_work() == 0
    with sessions.begin() as session:
        add_study(session, settings, model_version_id=model, images=30)
    assert upkeep.ring_for_work() == settings.worker_threads - 3
    assert waiting_rings(celery) == settings.worker_threads


def test_a_step_that_fails_does_not_stop_the_others(
    upkeep: Upkeep, sessions: sessionmaker[Session], settings: Settings
) -> None:
    study_id, _ = add(sessions, settings, received_before=timedelta(seconds=121))

    def slip() -> int:
        raise ZeroDivisionError

    upkeep.steps = (slip, upkeep.settle_studies)
    assert upkeep.run()
    assert item(sessions, study_id).settled


def test_upkeep_goes_on_without_a_broker(
    engine: Engine, sessions: sessionmaker[Session], settings: Settings
) -> None:
    study_id, _ = add(sessions, settings, received_before=timedelta(seconds=121))
    away = make_celery("unix:///nowhere/redis.sock")
    assert Upkeep(engine, sessions, away, settings).run()
    assert item(sessions, study_id).settled


def test_only_one_process_does_upkeep_at_a_time(
    upkeep: Upkeep, engine: Engine, sessions: sessionmaker[Session], settings: Settings
) -> None:
    study_id, _ = add(sessions, settings, received_before=timedelta(seconds=121))
    with engine.connect() as other:
        other.execute(text("SELECT pg_advisory_lock(:key)"), {"key": UPKEEP_LOCK})
        assert not upkeep.run()
        assert not item(sessions, study_id).settled
    engine.dispose()  # the pool's connection held the lock
    assert upkeep.run()
    assert upkeep.run()  # and gave it back
    assert item(sessions, study_id).settled
