"""The two processes of this folder: ``firstread work`` and ``firstread beat``."""

import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import Event, Thread
from typing import Any

from celery import Celery, signals
from celery.worker import state as celery_state
from sqlalchemy.orm import sessionmaker

from common.archive import Archive
from common.audit.delivery import Delivery
from common.database import make_engine, make_sessions
from common.errors import ConfigurationError, StorageUnavailableError, UnreachableError
from common.logs import configure_logs, get_logger
from common.metrics_server import MetricsServer
from common.queue import ANALYSE_QUEUE, UPKEEP_QUEUE
from common.readiness import Check, archive_check, broker_check, database_check
from common.schema import require_schema
from common.settings import Settings
from worker.analysing import Analyst
from worker.app import make_analyse_app, make_upkeep_app
from worker.batching import Batcher, DeviceLostError
from worker.claiming import Claims, worker_name
from worker.decoding import Decoder, Examine, examine_object
from worker.isolation import Isolation, Load
from worker.leases import LeaseKeeper
from worker.ledger_watch import LedgerWatch
from worker.loading import load_bundle
from worker.models import Locate, Models, locate_bundle
from worker.upkeep import Upkeep

DRAIN_S = 30.0  # work in flight at a warm shutdown has this long, then it is given up
EXIT_S = 10.0  # and whatever hangs then is left behind

log = get_logger()


class Service:
    """All parts of a worker, wired; Celery's threads call ``analyst.serve``."""

    def __init__(
        self,
        settings: Settings,
        *,
        load: Load = load_bundle,
        locate: Locate = locate_bundle,
        examine: Examine = examine_object,
    ) -> None:
        from model.eligibility import Policy

        self.settings = settings
        self.device_lost = False
        self._stopping = Event()
        self._ended = Event()
        self.engine = make_engine(
            settings.database_address(), pool_size=max(4, settings.worker_threads // 2)
        )
        sessions = make_sessions(self.engine)
        self.models = Models(sessions, partial(_load_on, load, settings.device), locate)
        self.claims = Claims(sessions, self.models.claimable, settings.lease_s)
        self.leases = LeaseKeeper(sessions, settings.lease_s)
        self.decoder = Decoder(settings, examine)
        self.batcher = Batcher(
            max_batch=settings.max_batch,
            max_wait_s=settings.batch_wait_ms / 1000,
            on_device_lost=self._lose_device,
            others_answer=self.models.others_answer,
            on_model_broken=self.models.drop_broken,
        )
        self.isolation = Isolation(settings, load, examine)
        self.analyst = Analyst(
            sessions=sessions,
            archive=Archive(settings.archive_path),
            models=self.models,
            claims=self.claims,
            leases=self.leases,
            decoder=self.decoder,
            batcher=self.batcher,
            isolation=self.isolation,
            policy=Policy(settings.unknown_age, settings.accept_secondary_capture),
            settings=settings,
        )

    def start(self) -> None:
        """Start the decoders, load and warm the live models, watch for new ones.

        Raises:
            UnreachableError: the database does not answer.
            ConfigurationError: its tables are older than this version, or missing.
        """
        try:
            require_schema(self.engine)
            self.decoder.start()
            self.models.refresh()
        except ConfigurationError:
            self.stop()
            raise
        except StorageUnavailableError as error:
            self.stop()
            raise UnreachableError(f"{error}; start Postgres, or run `firstread doctor`") from error
        if not self.models.claimable():
            log.warning("no_model_live", hint="see `firstread models`")
        Thread(target=self.models.watch, args=(self._stopping,), name="models", daemon=True).start()
        Thread(target=self._bound_the_end, name="end", daemon=True).start()

    def watched(self) -> MetricsServer:
        """Open the door for whoever watches this worker; nothing where no port is set.

        Raises:
            ConfigurationError: the address may not or cannot be bound to.
        """
        settings = self.settings
        return MetricsServer(
            settings,
            "worker",
            alive={"device": self.batcher.is_alive, "leases": self.leases.moves},
            ready=(
                database_check(self.engine),
                archive_check(Archive(settings.archive_path)),
                broker_check(settings.broker_address()),
                Check("model", lambda: "" if self.models.claimable() else "none is loaded"),
                Check("stopping", lambda: "claims nothing more" if self._stopping.is_set() else ""),
            ),
        )

    def begin_to_stop(self) -> None:
        """Claim nothing more; safe in a signal handler and to repeat."""
        self.claims.stop()
        self._stopping.set()

    def stop(self) -> None:
        """End everything; what is still in flight is left to its lease."""
        self.begin_to_stop()
        self.batcher.stop()
        self.decoder.stop()
        self.isolation.stop()
        self.leases.stop()
        self._ended.set()
        self.engine.dispose()

    def _bound_the_end(self) -> None:
        """Give work in flight its time after the shutdown began, then end it the hard way."""
        self._stopping.wait()
        if self._ended.wait(DRAIN_S):
            return
        log.warning("work_in_flight_given_up", after_s=DRAIN_S)
        self.batcher.stop()
        self.decoder.stop()
        self.isolation.stop()
        if not self._ended.wait(EXIT_S):
            log.error("worker_left_hanging_threads")
            os._exit(1 if self.device_lost else 0)

    def _lose_device(self, error: DeviceLostError) -> None:
        """Stop, so that whoever supervises this process starts another."""
        log.error("worker_stops", reason=str(error))
        self.device_lost = True
        self.begin_to_stop()
        celery_state.should_stop = 1


def work(settings: Settings, **parts: Any) -> int:  # noqa: ANN401 - see Service
    """Analyse until told to stop; the body of ``firstread work``.

    SIGTERM and Ctrl-C claim nothing more and finish what is in flight.

    Returns:
        The exit status.

    Raises:
        OperatorError: a setting is impossible, or the database does not answer.
    """
    configure_logs("worker", settings.log_level)
    service = Service(settings, **parts)
    app = make_analyse_app(settings.broker_address(), service.analyst.serve)
    door = service.watched().start()  # first: loading takes a while, and /readyz says so
    try:
        service.start()
        log.info("worker_started", worker=worker_name(), threads=settings.worker_threads)
        status = _consume(
            app,
            ANALYSE_QUEUE,
            pool="threads",
            concurrency=settings.worker_threads,
            told_to_stop=service.begin_to_stop,
        )
    finally:  # also when it was told to stop while it loaded
        door.stop()
        service.stop()
    log.info("worker_stopped", status=status)
    return 1 if service.device_lost else status


def beat(settings: Settings) -> int:
    """Do upkeep until told to stop; the body of ``firstread beat``.

    One process: Celery's beat in a thread, and a consumer of the upkeep queue alone, so that no
    amount of analysing delays upkeep. Several may run: an advisory lock lets one at a time work.

    Returns:
        The exit status.

    Raises:
        ConfigurationError: the tables are older than this version.
    """
    from celery.beat import Scheduler
    from celery.beat import Service as Clock

    configure_logs("beat", settings.log_level)
    engine = make_engine(settings.database_address(), pool_size=4)
    with suppress(StorageUnavailableError):  # it may come later, as at any other time
        require_schema(engine)
    sessions: sessionmaker[Any] = make_sessions(engine)
    delivery = Delivery(engine, sessions, settings)
    ringer = make_analyse_app(settings.broker_address(), lambda _: None)
    upkeep = Upkeep(engine, sessions, ringer, settings)
    app = make_upkeep_app(settings.broker_address(), upkeep.run, settings.upkeep_interval_s)
    clock = Clock(app, max_interval=1, scheduler_cls=Scheduler, remote_control=False)

    def tick() -> None:
        try:
            clock.start()
        except Exception:  # the boundary: without its clock this process is of no use
            log.exception("beat_stopped")
            celery_state.should_stop = 1

    ticking = Thread(target=tick, name="clock", daemon=True)
    watch = LedgerWatch(sessions)
    door = MetricsServer(
        settings,
        "beat",
        alive={"clock": ticking.is_alive},
        ready=(
            database_check(engine),
            broker_check(settings.broker_address()),
            Check("rounds", lambda: "" if upkeep.heard_lately() else "none was heard of late"),
        ),
    )
    ticking.start()
    ended = Event()
    Thread(target=delivery.run, args=(ended,), name="audit", daemon=True).start()
    if door.port is not None:  # nobody else looks at its figures
        watch.start()
    door.start()
    log.info("beat_started", every_s=settings.upkeep_interval_s)
    status = _consume(app, UPKEEP_QUEUE, pool="solo", concurrency=1)
    ended.set()
    door.stop()
    watch.stop()
    clock.stop()
    engine.dispose()
    log.info("beat_stopped", status=status)
    return status


def _consume(
    app: Celery,
    queue: str,
    *,
    pool: str,
    concurrency: int,
    told_to_stop: Callable[[], None] = lambda: None,
) -> int:
    """Run a Celery worker in this process until a signal ends it.

    Returns:
        0 if a signal asked for it, whichever it was; else Celery's own exit status.
    """
    asked = Event()

    def heed(**_: object) -> None:
        asked.set()
        told_to_stop()

    signals.worker_shutting_down.connect(heed)
    # Celery warns of running as root for pickle's sake; messages here are JSON.
    warnings.filterwarnings("ignore", message="You're running the worker with superuser")
    worker = app.Worker(
        pool=pool,
        concurrency=concurrency,
        queues=[queue],
        hostname=f"{queue}@{worker_name()}",
        loglevel="WARNING",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    worker.start()
    return 0 if asked.is_set() else int(worker.exitcode or 0)


def _load_on(load: Load, device: str, bundle: Any) -> Any:  # noqa: ANN401 - Bundle, Pipeline
    return load(bundle, device)
