"""From claim to committed row, on a real Postgres, in the threads that Celery would use."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import numpy as np
import pytest
from sqlalchemy import create_engine, func, make_url, text, update

from common.lifecycle import claim, expire_leases, finish
from common.settings import Settings
from common.states import AnalysisState, Outcome
from common.tables import Analysis, WorklistItem
from tests.integration.worker.conftest import Ledger
from tests.ledger import result
from tests.worker_parts import DEADLY, POISON
from worker.results import UNSUPPORTED
from worker.service import Service

Make = Callable[[Settings], Service]


def test_a_queued_image_becomes_a_result_and_a_place_on_the_worklist(
    ledger: Ledger, settings: Settings, make_service: Make
) -> None:
    (analysis_id,) = ledger.queue("score 2.0")
    assert make_service(settings).analyst.serve(analysis_id) == 1
    row = ledger.row(analysis_id)
    assert (row.state, row.outcome, row.score) == (AnalysisState.DONE, Outcome.FLAGGED, 2.0)
    assert row.probability == pytest.approx(1 / (1 + np.exp(-2)))
    assert row.insight_probability == 0.9
    assert row.reasons == ["no view position stated"]
    heatmap = np.frombuffer(row.heatmap or b"", dtype=np.float16)
    assert (row.heatmap_rows, row.heatmap_columns, heatmap.tolist()) == (2, 3, [0.5] * 6)
    assert (row.rows, row.columns) == (30, 40)
    assert row.heatmap_affine == [40, 0, 0, 0, 30, 0]
    instants = [row.claimed_at, row.decoded_at, row.predicted_at, row.finished_at]
    assert instants == sorted(instant for instant in instants if instant is not None)
    with ledger.sessions() as session:
        item = session.get_one(WorklistItem, row.study_id)
        assert (item.outcome, item.band, item.images) == (Outcome.FLAGGED, 1, 1)


def test_a_flag_that_insight_contradicts_says_so(
    ledger: Ledger, settings: Settings, make_service: Make
) -> None:
    unsupported, unflagged = ledger.queue("score 0.5", "score -0.5")
    make_service(settings).analyst.serve()
    assert UNSUPPORTED in ledger.row(unsupported).reasons
    assert UNSUPPORTED not in ledger.row(unflagged).reasons


def test_an_image_that_the_pipeline_was_not_made_for_says_why(
    ledger: Ledger, settings: Settings, make_service: Make
) -> None:
    (analysis_id,) = ledger.queue("ineligible")
    make_service(settings).analyst.serve()
    row = ledger.row(analysis_id)
    assert (row.state, row.reasons) == (AnalysisState.NOT_ELIGIBLE, ["under 18 years"])
    assert (row.rows, row.columns, row.rendition) == (4, 5, None)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("unreadable", "cut off"),
        ("die", "decoding crashed: the process died: signal SIGSEGV"),
        (f"score {POISON}", "the model failed on this image"),
        ("defect", "defect: KeyError"),
    ],
)
def test_an_images_own_error_fails_it_after_three_tries_and_its_neighbour_never(
    ledger: Ledger, settings: Settings, make_service: Make, content: str, said: str
) -> None:
    bad, good = ledger.queue(content, "score 1")
    make_service(settings).analyst.serve()
    row = ledger.row(bad)
    assert (row.state, row.failures, row.attempt) == (AnalysisState.FAILED, 3, 3)
    assert row.error is not None
    assert said in row.error
    assert (ledger.row(good).state, ledger.row(good).attempt) == (AnalysisState.DONE, 1)


def test_an_archive_that_is_away_fails_nobody(
    ledger: Ledger, settings: Settings, make_service: Make
) -> None:
    first, second = ledger.queue("offline", "offline")
    assert make_service(settings).analyst.serve() == 1
    row = ledger.row(first)
    assert (row.state, row.failures) == (AnalysisState.RUNNING, 0)  # its lease will end
    assert ledger.row(second).state is AnalysisState.QUEUED  # claims are paused


def test_every_fourth_claim_takes_the_oldest(
    ledger: Ledger, settings: Settings, make_service: Make
) -> None:
    oldest, *urgent = ledger.queue(*["score 0"] * 6)
    with ledger.sessions.begin() as session:
        session.execute(update(Analysis).where(Analysis.id.in_(urgent)).values(band=0))
        session.execute(
            update(Analysis)
            .where(Analysis.id == oldest)
            .values(lane=1, queued_at=func.clock_timestamp() - timedelta(days=1))
        )
    claims = make_service(settings).claims
    taken = [claims.take() for _ in range(6)]
    assert [item and item.analysis_id for item in taken] == [*urgent[:3], oldest, *urgent[3:]]


def test_a_result_after_a_lost_lease_is_discarded_and_counted(
    ledger: Ledger, settings: Settings, make_service: Make
) -> None:
    (analysis_id,) = ledger.queue("score 2")
    service = make_service(settings)
    late = service.claims.take()
    assert late is not None
    with ledger.sessions.begin() as session:
        session.execute(
            update(Analysis).values(lease_until=func.clock_timestamp() - timedelta(seconds=1))
        )
        assert expire_leases(session) == [analysis_id]
        other = claim(
            session, worker="other", model_version_ids=[ledger.model_version_id], lease_s=60
        )
        assert other is not None
        assert finish(session, other, result(0.25), settings)
    service.analyst.analyse(late)
    row = ledger.row(analysis_id)
    assert (row.probability, row.attempt, row.late_results) == (0.25, 2, 1)


def test_a_lost_lease_is_noticed_by_who_renews(
    ledger: Ledger, settings: Settings, make_service: Make
) -> None:
    lost_id, kept_id = ledger.queue("score 1", "score 1")
    service = make_service(settings)
    first, second = service.claims.take(), service.claims.take()
    assert first is not None
    assert second is not None
    before = ledger.row(kept_id).lease_until
    with service.leases.hold(first) as lost, service.leases.hold(second) as kept:
        with ledger.sessions.begin() as session:
            session.execute(
                update(Analysis).where(Analysis.id == lost_id).values(attempt=Analysis.attempt + 1)
            )
        service.leases.renew_all()
        assert (lost.is_set(), kept.is_set()) == (True, False)
    after = ledger.row(kept_id).lease_until
    assert before is not None
    assert after is not None
    assert after > before


def test_leases_outlive_their_length_while_the_work_goes_on(
    ledger: Ledger, settings: Settings, make_service: Make
) -> None:
    (analysis_id,) = ledger.queue("hang")  # until the decoding deadline of two seconds
    service = make_service(settings.model_copy(update={"lease_s": 0.6}))
    claimed = service.claims.take()
    assert claimed is not None
    with ThreadPoolExecutor() as threads:
        work = threads.submit(service.analyst.analyse, claimed)
        with pytest.raises(TimeoutError):
            work.result(1.5)
        with ledger.sessions.begin() as session:
            assert expire_leases(session) == []
    row = ledger.row(analysis_id)
    assert (row.state, row.failures, row.losses) == (AnalysisState.QUEUED, 1, 0)
    assert row.error == "decoding gave no result within 2 s"


@pytest.mark.parametrize(
    ("content", "state", "failures"),
    [
        ("score 2", AnalysisState.DONE, 0),
        ("ineligible", AnalysisState.NOT_ELIGIBLE, 0),
        (f"score {DEADLY}", AnalysisState.FAILED, 1),
        ("die", AnalysisState.FAILED, 1),
    ],
)
def test_a_row_that_lost_two_workers_runs_alone_and_only_there_fails_as_a_crasher(
    ledger: Ledger,
    settings: Settings,
    make_service: Make,
    content: str,
    state: AnalysisState,
    failures: int,
) -> None:
    (analysis_id,) = ledger.queue(content)
    with ledger.sessions.begin() as session:
        session.execute(update(Analysis).values(losses=2))
    make_service(settings).analyst.serve()
    row = ledger.row(analysis_id)
    assert (row.state, row.failures, row.attempt) == (state, failures, 1)
    assert bool(row.error and "alone in its process" in row.error) == (failures == 1)


def test_many_threads_do_each_row_once(
    ledger: Ledger, settings: Settings, make_service: Make
) -> None:
    ledger.queue(*[f"score {number / 10}" for number in range(40)])
    service = make_service(settings)
    with ThreadPoolExecutor(4) as threads:
        done = sum(threads.map(service.analyst.serve, range(8)))
    assert done == 40
    rows = ledger.rows()
    assert {(row.state, row.attempt, row.late_results) for row in rows} == {
        (AnalysisState.DONE, 1, 0)
    }
    assert [row.score for row in rows] == pytest.approx([n / 10 for n in range(40)], abs=1e-6)


def test_a_result_outlasts_a_database_that_is_away(
    ledger: Ledger, settings: Settings, make_service: Make, postgres: str, database_url: str
) -> None:
    (analysis_id,) = ledger.queue("score 2")
    service = make_service(settings)
    claimed = service.claims.take()
    assert claimed is not None
    name = make_url(database_url).database
    admin = create_engine(postgres, isolation_level="AUTOCOMMIT")
    with ThreadPoolExecutor() as threads, admin.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
            {"name": name},
        )
        work = threads.submit(service.analyst.analyse, claimed)
        with pytest.raises(TimeoutError):
            work.result(4)
        connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
        work.result(20)
    admin.dispose()
    row = ledger.row(analysis_id)
    assert (row.state, row.attempt, row.late_results) == (AnalysisState.DONE, 1, 0)


def test_a_worker_that_was_told_to_stop_claims_nothing(
    ledger: Ledger, settings: Settings, make_service: Make
) -> None:
    (analysis_id,) = ledger.queue("score 1")
    service = make_service(settings)
    service.begin_to_stop()
    assert service.analyst.serve(analysis_id) == 0
    assert ledger.row(analysis_id).state is AnalysisState.QUEUED
