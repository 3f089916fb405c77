"""The Celery applications: one hears the bell, one keeps the beat. What tasks do is passed in."""

from collections.abc import Callable

from celery import Celery, signals

from common.queue import ANALYSE, UPKEEP, UPKEEP_QUEUE, make_celery


def make_analyse_app(broker_url: str, serve: Callable[[int], object]) -> Celery:
    """Make the application whose messages are permits to work: ``serve`` works one off."""
    app = make_celery(broker_url)

    @app.task(name=ANALYSE, ignore_result=True)
    def analyse_task(rung_for: int) -> None:
        serve(rung_for)

    return app


def make_upkeep_app(broker_url: str, upkeep: Callable[[], object], every_s: float) -> Celery:
    """Make the application that does upkeep every few seconds, on its own queue.

    A message that nobody took before the next one expires: rounds never pile up.
    """
    app = make_celery(broker_url)

    @app.task(name=UPKEEP, ignore_result=True)
    def upkeep_task() -> None:
        upkeep()

    app.conf.beat_schedule = {
        "upkeep": {
            "task": UPKEEP,
            "schedule": every_s,
            "options": {"queue": UPKEEP_QUEUE, "expires": every_s},
        }
    }
    return app


@signals.setup_logging.connect(weak=False)
def _keep_our_logs(**_: object) -> None:
    """Stop Celery from setting up logs of its own: it does where nobody answers this signal."""
