"""Transitions that happen at once, each in a session of its own."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from common.lifecycle import activate, claim, fail, finish
from common.reading import set_order_priority
from common.rerunning import reprocess, retry
from common.settings import Settings
from common.states import AnalysisState, ModelState, OrderPriority
from common.tables import Analysis, ModelVersion, Study, WorklistItem
from common.worklist import derive_item
from tests.ledger import add_model, add_study, result

Sessions = sessionmaker[Session]


@pytest.fixture
def model(sessions: Sessions) -> int:
    with sessions.begin() as session:
        return add_model(session)


def at_once(*steps: Callable[[], object]) -> list[object]:
    """Start all steps in the same instant; raise what one of them raised."""
    waiting = Barrier(len(steps))

    def run(step: Callable[[], object]) -> object:
        waiting.wait(10)
        return step()

    with ThreadPoolExecutor(len(steps)) as threads:
        return [future.result() for future in [threads.submit(run, step) for step in steps]]


def test_an_activation_and_priorities_that_change_meanwhile_never_deadlock(
    sessions: Sessions, model: int, settings: Settings
) -> None:
    with sessions.begin() as session:
        study_id = add_study(session, settings, model_version_id=model, images=40).id
        other = add_model(session, "another")
        # Rows that lie on the disk in the opposite order of their ids.
        for analysis_id in session.scalars(select(Analysis.id).order_by(Analysis.id.desc())):
            session.execute(update(Analysis).where(Analysis.id == analysis_id).values(losses=1))
        session.execute(
            update(ModelVersion)
            .where(ModelVersion.id == other)
            .values(pipeline="chest_xray", state=ModelState.RETIRED)
        )

    def activations() -> None:
        for number in range(30):
            with sessions.begin() as session:
                activate(session, session.get_one(ModelVersion, (model, other)[number % 2]))

    def priorities() -> None:
        for number in range(30):
            to = (OrderPriority.STAT, OrderPriority.ROUTINE)[number % 2]
            with sessions.begin() as session:
                set_order_priority(session, session.get_one(Study, study_id), "R", to, settings)

    at_once(activations, priorities)
    with sessions() as session:
        live = session.scalars(
            select(ModelVersion.id).where(ModelVersion.state == ModelState.LIVE)
        ).one()
        place = session.get_one(WorklistItem, study_id)
        rows = session.execute(
            select(Analysis.model_version_id, Analysis.band, Analysis.due_at).distinct()
        ).all()
    assert rows == [(live, place.band, place.due_at)]


def test_two_people_who_ask_for_a_new_run_at_once_get_one(
    sessions: Sessions, model: int, settings: Settings
) -> None:
    with sessions.begin() as session:
        study_id = add_study(session, settings, model_version_id=model, images=3).id
    for _ in range(3):
        with sessions.begin() as session:
            claimed = claim(session, worker="w", model_version_ids=[model], lease_s=60)
            assert claimed is not None
            assert finish(session, claimed, result(0.1), settings)

    def ask() -> int:
        with sessions.begin() as session:
            return len(reprocess(session, study_id, settings))

    assert sorted(at_once(*[ask] * 4)) == [0, 0, 0, 3]  # pyright: ignore[reportArgumentType]


def test_a_failure_that_a_later_run_has_replaced_is_not_queued_again(
    sessions: Sessions, model: int, settings: Settings
) -> None:
    with sessions.begin() as session:
        study_id = add_study(session, settings, model_version_id=model).id

    def work(*, fails: bool) -> int:
        with sessions.begin() as session:
            claimed = claim(session, worker="w", model_version_ids=[model], lease_s=60)
            assert claimed is not None
            if fails:
                assert fail(session, claimed, "broken", settings, for_good=True)
            else:
                assert finish(session, claimed, result(0.1), settings)
        return claimed.analysis_id

    failed = work(fails=True)
    with sessions.begin() as session:
        assert len(reprocess(session, study_id, settings)) == 1
    work(fails=False)
    with sessions.begin() as session:
        assert derive_item(session, study_id, settings, settled=True).final
    with sessions.begin() as session:
        assert retry(session, [failed], settings) == []
        place = derive_item(session, study_id, settings)
        states = session.scalars(select(Analysis.state).order_by(Analysis.run)).all()
    assert place.final
    assert states == [AnalysisState.FAILED, AnalysisState.DONE]


def test_workers_that_claim_at_once_while_leases_end_never_share_a_row(
    sessions: Sessions, model: int, settings: Settings
) -> None:
    with sessions.begin() as session:
        add_study(session, settings, model_version_id=model, images=30)
    tokens: list[tuple[int, int]] = []
    stored: list[int] = []

    def worker() -> None:
        for number in range(40):
            with sessions.begin() as session:
                claimed = claim(
                    session,
                    worker="w",
                    model_version_ids=[model],
                    lease_s=60,
                    oldest=number % 4 == 0,
                )
            if claimed is None:
                return
            tokens.append((claimed.analysis_id, claimed.attempt))
            if number % 3 == 0:  # dead: its lease ends and another may take the row
                with sessions.begin() as session:
                    session.execute(
                        update(Analysis)
                        .where(Analysis.id == claimed.analysis_id)
                        .where(Analysis.state == AnalysisState.RUNNING)
                        .values(
                            state=AnalysisState.QUEUED, lease_until=None, losses=Analysis.losses + 1
                        )
                    )
            with sessions.begin() as session:
                if finish(session, claimed, result(0.2), settings):
                    stored.append(claimed.analysis_id)

    at_once(*[worker] * 6)
    assert len(tokens) == len(set(tokens))
    assert len(tokens) > 30, "no row was taken twice: nothing was shown"
    assert sorted(stored) == sorted(set(stored))
    with sessions() as session:
        late = session.execute(select(func.sum(Analysis.late_results))).scalar_one()
        done = session.scalars(select(Analysis.id).where(Analysis.state == AnalysisState.DONE))
        assert sorted(done) == sorted(stored)
    assert late == len(tokens) - len(stored)
