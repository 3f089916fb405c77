"""Random interleavings of everything that changes an analysis or a study's place."""

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from common.settings import Settings
from tests.integration.common.lifecycle_machine import Lives

EXAMPLES, STEPS = 15, 30


def run_lives(
    engine: Engine, sessions: sessionmaker[Session], site: Settings, *, examples: int, steps: int
) -> None:
    """Run so many random lives; the same ones each time, so that a failure is met again."""

    class LivesHere(Lives):
        """Lives on this database."""

    LivesHere.engine, LivesHere.sessions, LivesHere.settings = engine, sessions, site
    run_state_machine_as_test(
        LivesHere,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],  # to shrink a life takes minutes, and says little more
            report_multiple_bugs=False,
            print_blob=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )


def test_any_order_of_events_keeps_every_promise_of_the_ledger(
    engine: Engine, sessions: sessionmaker[Session], settings: Settings
) -> None:
    site = settings.model_copy(update={"ae_priorities": {"CT1": "urgent"}})
    run_lives(engine, sessions, site, examples=EXAMPLES, steps=STEPS)
