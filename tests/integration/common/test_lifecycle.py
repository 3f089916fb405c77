"""Transitions on a real Postgres, with several sessions at once where that is the point."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from common.lifecycle import (
    Claim,
    activate,
    claim,
    expire_leases,
    fail,
    finish,
    refuse,
    renew,
)
from common.rerunning import reprocess, retry
from common.settings import Settings
from common.states import AnalysisState, ModelState, Outcome
from common.tables import Analysis, ModelVersion, WorklistItem
from common.worklist import derive_item
from tests.ledger import add_image, add_model, add_study, result

Sessions = sessionmaker[Session]


def take(sessions: Sessions, model: int, *, oldest: bool = False) -> Claim | None:
    with sessions.begin() as session:
        return claim(session, worker="w", model_version_ids=[model], lease_s=60, oldest=oldest)


def taken(sessions: Sessions, model: int) -> Claim:
    found = take(sessions, model)
    assert found is not None
    return found


def row(sessions: Sessions, analysis_id: int) -> Analysis:
    with sessions() as session:
        return session.get_one(Analysis, analysis_id)


def item(sessions: Sessions, study_id: int) -> WorklistItem:
    with sessions() as session:
        return session.get_one(WorklistItem, study_id)


def lose_leases(sessions: Sessions) -> None:
    with sessions.begin() as session:
        session.execute(
            update(Analysis)
            .where(Analysis.state == AnalysisState.RUNNING)
            .values(lease_until=func.clock_timestamp() - timedelta(seconds=1))
        )
        expire_leases(session)


@pytest.fixture
def model(sessions: Sessions) -> int:
    with sessions.begin() as session:
        return add_model(session)


def test_the_most_urgent_is_claimed_first_and_the_oldest_on_request(
    sessions: Sessions, model: int, settings: Settings
) -> None:
    with sessions.begin() as session:
        routine = add_study(
            session, settings, model_version_id=model, received_before=timedelta(hours=2)
        )
        stat = add_study(
            session, settings, model_version_id=model, requested_procedure_priority="STAT"
        )
        session.execute(
            update(Analysis)
            .where(Analysis.study_id == stat.id)
            .values(band=0, due_at=func.clock_timestamp())
        )
    assert taken(sessions, model).study_id == stat.id
    lose_leases(sessions)
    oldest = take(sessions, model, oldest=True)
    assert oldest is not None
    assert oldest.study_id == routine.id


def test_no_analysis_is_claimed_twice_by_workers_that_come_together(
    sessions: Sessions, model: int, settings: Settings
) -> None:
    with sessions.begin() as session:
        add_study(session, settings, model_version_id=model, images=20)
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda _: take(sessions, model), range(24)))
    ids = [found.analysis_id for found in claims if found]
    assert len(ids) == len(set(ids)) == 20


def test_work_for_a_model_that_is_not_loaded_is_left_alone(
    sessions: Sessions, model: int, settings: Settings
) -> None:
    with sessions.begin() as session:
        add_study(session, settings, model_version_id=None)
    assert take(sessions, model) is None


def test_a_result_is_stored_with_the_studys_new_place(
    sessions: Sessions, model: int, settings: Settings
) -> None:
    with sessions.begin() as session:
        study = add_study(session, settings, model_version_id=model)
    assert item(sessions, study.id).outcome is Outcome.PENDING
    claimed = taken(sessions, model)
    with sessions.begin() as session:
        assert finish(session, claimed, result(0.9), settings)
    stored, place = row(sessions, claimed.analysis_id), item(sessions, study.id)
    assert (stored.state, stored.probability) == (AnalysisState.DONE, 0.9)
    assert (place.outcome, place.band, place.probability) == (Outcome.FLAGGED, 1, 0.9)
    assert "Flagged" in place.reason


def test_two_results_of_one_study_that_commit_together_are_both_seen(
    sessions: Sessions, model: int, settings: Settings
) -> None:
    with sessions.begin() as session:
        study = add_study(session, settings, model_version_id=model, images=8)
    claims = [taken(sessions, model) for _ in range(8)]

    def store(claimed: Claim) -> bool:
        with sessions.begin() as session:
            return finish(session, claimed, result(0.1), settings)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(store, claims))
    place = item(sessions, study.id)
    assert (place.outcome, place.images) == (Outcome.NOT_FLAGGED, 8)


def test_a_late_result_is_discarded_and_counted(
    sessions: Sessions, model: int, settings: Settings
) -> None:
    with sessions.begin() as session:
        add_study(session, settings, model_version_id=model)
    late = taken(sessions, model)
    lose_leases(sessions)
    again = taken(sessions, model)
    assert again.attempt == late.attempt + 1
    assert again.losses == 1
    with sessions.begin() as session:
        assert not finish(session, late, result(0.9), settings)
        assert renew(session, [late], 60) == set()
    stored = row(sessions, late.analysis_id)
    assert (stored.state, stored.score, stored.late_results) == (AnalysisState.RUNNING, None, 1)
    with sessions.begin() as session:
        assert renew(session, [again], 60) == {again.analysis_id}
        assert finish(session, again, result(0.1), settings)


def test_losses_never_count_as_the_images_own_failures(
    sessions: Sessions, model: int, settings: Settings
) -> None:
    with sessions.begin() as session:
        add_study(session, settings, model_version_id=model)
    for _ in range(5):
        taken(sessions, model)
        lose_leases(sessions)
    claimed = taken(sessions, model)
    stored = row(sessions, claimed.analysis_id)
    assert (stored.losses, stored.failures) == (5, 0)


def test_the_third_failure_is_final_until_a_person_says_retry(
    sessions: Sessions, model: int, settings: Settings
) -> None:
    with sessions.begin() as session:
        study = add_study(session, settings, model_version_id=model)
    for expected in (AnalysisState.QUEUED, AnalysisState.QUEUED, AnalysisState.FAILED):
        claimed = taken(sessions, model)
        with sessions.begin() as session:
            assert fail(session, claimed, "no decoder", settings)
        assert row(sessions, claimed.analysis_id).state is expected
    assert item(sessions, study.id).outcome is Outcome.INCOMPLETE
    assert take(sessions, model) is None
    with sessions.begin() as session:
        assert retry(session, [claimed.analysis_id], settings) == [claimed.analysis_id]
    assert item(sessions, study.id).outcome is Outcome.PENDING
    assert taken(sessions, model).analysis_id == claimed.analysis_id


def test_a_crasher_that_ran_alone_fails_at_once(
    sessions: Sessions, model: int, settings: Settings
) -> None:
    with sessions.begin() as session:
        add_study(session, settings, model_version_id=model)
    claimed = taken(sessions, model)
    with sessions.begin() as session:
        assert fail(session, claimed, "killed its process", settings, for_good=True)
    assert row(sessions, claimed.analysis_id).state is AnalysisState.FAILED


def test_a_refusal_is_a_result_with_its_reasons(
    sessions: Sessions, model: int, settings: Settings
) -> None:
    with sessions.begin() as session:
        study = add_study(session, settings, model_version_id=model)
    claimed = taken(sessions, model)
    with sessions.begin() as session:
        assert refuse(session, claimed, ["view is lateral"], settings)
    assert row(sessions, claimed.analysis_id).reasons == ["view is lateral"]
    assert item(sessions, study.id).outcome is Outcome.NOT_ELIGIBLE


def test_the_database_itself_refuses_a_result_without_a_score(
    sessions: Sessions, model: int, settings: Settings
) -> None:
    with sessions.begin() as session:
        add_study(session, settings, model_version_id=model)
    with sessions.begin() as session, pytest.raises(IntegrityError, match="done_has_result"):
        session.execute(text("UPDATE analysis SET state = 'done', outcome = 'not_flagged'"))


def test_activation_retires_the_old_version_and_repoints_what_is_queued(
    sessions: Sessions, model: int, settings: Settings
) -> None:
    with sessions.begin() as session:
        add_study(session, settings, model_version_id=model, images=3)
    running = taken(sessions, model)
    with sessions.begin() as session:
        new = ModelVersion(
            pipeline="chest_xray",
            name="new",
            version="2",
            bundle_sha256="f" * 64,
            folder="/nowhere",
            threshold=0.4,
            state=ModelState.CANDIDATE,
        )
        session.add(new)
        session.flush()
        assert activate(session, new) == 2
    with sessions() as session:
        states = dict(session.execute(select(ModelVersion.id, ModelVersion.state)).all())  # pyright: ignore[reportArgumentType]
    assert states == {model: ModelState.RETIRED, new.id: ModelState.LIVE}
    with sessions.begin() as session:
        assert finish(session, running, result(0.9), settings)
    assert row(sessions, running.analysis_id).model_version_id == model
    assert taken(sessions, new.id).model_version_id == new.id


def test_reprocessing_adds_a_run_and_keeps_the_old_one(
    sessions: Sessions, model: int, settings: Settings
) -> None:
    with sessions.begin() as session:
        study = add_study(session, settings, model_version_id=model)
    claimed = taken(sessions, model)
    with sessions.begin() as session:
        assert finish(session, claimed, result(0.9), settings)
    with sessions.begin() as session:
        (again,) = reprocess(session, study.id, settings)
        assert reprocess(session, study.id, settings) == []
    assert item(sessions, study.id).outcome is Outcome.FLAGGED
    claimed = taken(sessions, model)
    assert claimed.analysis_id == again
    with sessions.begin() as session:
        assert finish(session, claimed, result(0.1), settings)
    assert item(sessions, study.id).outcome is Outcome.NOT_FLAGGED


def test_a_late_image_reopens_a_settled_study(
    sessions: Sessions, model: int, settings: Settings
) -> None:
    with sessions.begin() as session:
        study = add_study(session, settings, model_version_id=model)
    claimed = taken(sessions, model)
    with sessions.begin() as session:
        assert finish(session, claimed, result(0.1), settings)
    with sessions.begin() as session:
        derive_item(session, study.id, settings, settled=True)
    assert item(sessions, study.id).final
    with sessions.begin() as session:
        add_image(session, settings, session.merge(study), model_version_id=model)
    place = item(sessions, study.id)
    assert (place.final, place.settled, place.outcome) == (False, False, Outcome.PENDING)
