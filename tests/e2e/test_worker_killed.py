"""Kill the worker with studies in flight: all of them end done, each once."""

import os
from collections import Counter

from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from common.database import make_engine, make_sessions
from common.states import AnalysisState
from common.tables import Analysis
from tests.e2e.running import RunningStack
from tests.waiting import eventually

STUDIES = int(os.environ.get("KILL_STUDIES", "24"))  # 200 by `make kill-test`
PATIENCE_S = 120 + 3 * STUDIES


def test_a_killed_worker_loses_no_study_and_does_none_twice() -> None:
    with RunningStack(FIRSTREAD_LEASE_S="6", FIRSTREAD_UPKEEP_INTERVAL_S="1") as stack:
        stack.start().wait_up()
        engine = make_engine(stack.settings.database_address(), pool_size=1)
        sessions = make_sessions(engine)
        worker = stack.service("work")
        worker.suspend()  # all of them wait until everything is there
        sent = stack.run(
            "simulate", "--plain", "--rate", "1000", "--count", str(STUDIES),
            timeout_s=PATIENCE_S,
        )  # fmt: skip
        assert sent.returncode == 0, sent.stderr
        assert count_states(sessions)[AnalysisState.QUEUED] == STUDIES
        worker.resume()
        assert eventually(lambda: is_amid_work(sessions), 120, pause_s=0.02)
        worker.kill()
        assert eventually(lambda: is_through(sessions), PATIENCE_S), count_states(sessions)
        assert count_states(sessions) == {AnalysisState.DONE: STUDIES}
        with sessions() as session:
            rows = session.scalars(select(Analysis)).all()
        engine.dispose()
        assert len({row.instance_id for row in rows}) == STUDIES  # no object has two analyses
        assert max(row.attempt for row in rows) == 2  # those that the dead worker held
        assert sum(row.losses for row in rows) == sum(row.attempt == 2 for row in rows) > 0
        assert sum(row.failures for row in rows) == 0  # the images are not to blame
        assert "worker ended (signal 9)" in stack.told()


def count_states(sessions: sessionmaker[Session]) -> Counter[AnalysisState]:
    """Count the analyses in each state."""
    with sessions() as session:
        counted = session.execute(select(Analysis.state, func.count()).group_by(Analysis.state))
        return Counter({state: count for state, count in counted})


def is_amid_work(sessions: sessionmaker[Session]) -> bool:
    """Say whether some are done, some at work."""
    counts = count_states(sessions)
    return counts[AnalysisState.DONE] > 0 and counts[AnalysisState.RUNNING] > 0


def is_through(sessions: sessionmaker[Session]) -> bool:
    """Say whether nothing waits and nothing is at work."""
    counts = count_states(sessions)
    return counts[AnalysisState.QUEUED] + counts[AnalysisState.RUNNING] == 0
