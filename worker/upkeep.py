"""Periodic upkeep: one at a time, every step bounded, repeatable and on its own.

A step that fails is logged and the others run all the same; the next round tries again.
"""

import time
from collections.abc import Callable
from datetime import timedelta

from celery import Celery
from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import RedisError
from sqlalchemy import Engine, exists, func, select, update
from sqlalchemy.orm import Session, aliased, sessionmaker

from common import metrics
from common.database import only_one, storage_errors
from common.errors import StorageUnavailableError
from common.lifecycle import NOW, expire_leases, requeue_order
from common.logs import get_logger
from common.queue import ring, waiting_rings
from common.reading import rerank
from common.retention import Retention
from common.settings import Settings
from common.states import AnalysisState, ModelState, Purpose
from common.tables import Analysis, ModelVersion, Study, WorklistItem
from common.worklist import derive_item

UPKEEP_LOCK = 7265002
STUDIES_PER_ROUND = 200
RERANK_STEP = 25
RERANK_STEPS = 20
RETAIN_STUDIES = 20  # a round; the other steps come first
RETAIN_EVERY_S = 300.0
SLOW_ROUND_S = 30.0

log = get_logger()


class Upkeep:
    """What keeps the ledger true when nobody touches it."""

    def __init__(
        self, engine: Engine, sessions: sessionmaker[Session], celery: Celery, settings: Settings
    ) -> None:
        self._engine = engine
        self._sessions = sessions
        self._celery = celery
        self._settings = settings
        self._heard_at = time.monotonic()
        self.steps: tuple[Callable[[], int], ...] = (
            self.expire_leases,
            self.follow_live_models,
            self.settle_studies,
            self.promote_studies,
            self.rerank_studies,
            self.ring_for_work,
            self.retain,
        )
        self._retain_at_s = 0.0  # monotonic

    def heard_lately(self) -> bool:
        """Say whether rounds are asked for; they come through the broker."""
        limit_s = 6 * self._settings.upkeep_interval_s + SLOW_ROUND_S
        return time.monotonic() - self._heard_at < limit_s

    def run(self) -> bool:
        """Do all steps once. False, and nothing done, while another process does them."""
        self._heard_at = time.monotonic()
        try:
            with storage_errors(), only_one(self._engine, UPKEEP_LOCK) as is_ours:
                if not is_ours:
                    return False
                with metrics.UPKEEP_SECONDS.time():
                    self._run_steps()
        except StorageUnavailableError as error:
            log.warning("upkeep_not_done", reason=str(error))
            return False
        metrics.UPKEEP_ROUND.set(time.time())
        return True

    def _run_steps(self) -> None:
        for step in self.steps:
            try:
                with storage_errors():
                    changed = step()
            except (StorageUnavailableError, BrokerError, RedisError, OSError) as error:
                metrics.UPKEEP_FAILED.labels(step.__name__).inc()
                log.warning("upkeep_step_failed", step=step.__name__, reason=str(error))
            except Exception:  # the boundary: the other steps are not to suffer
                metrics.UPKEEP_FAILED.labels(step.__name__).inc()
                log.exception("upkeep_step_failed", step=step.__name__)
            else:
                if changed:
                    metrics.UPKEEP_CHANGED.labels(step.__name__).inc(changed)
                    log.info("upkeep_step_done", step=step.__name__, changed=changed)

    def expire_leases(self) -> int:
        """Return analyses whose worker is gone to the queue."""
        with self._sessions.begin() as session:
            lost = expire_leases(session)
        metrics.LOSSES.labels("lease_expired").inc(len(lost))
        for analysis_id in lost:
            log.warning("lease_expired", analysis_id=analysis_id)
        return len(lost)

    def follow_live_models(self) -> int:
        """Point what is queued under a version that is not live at the one that is.

        An activation re-points what is queued then. What comes after it (a lease that expires, a
        retry, an object received in the same instant) would wait for a version that nobody has.
        """
        live, now_live = aliased(ModelVersion), ModelState.LIVE
        stale = (
            select(Analysis.id)
            .where(
                Analysis.state == AnalysisState.QUEUED,
                Analysis.purpose == Purpose.LIVE,
                ~exists().where(
                    ModelVersion.id == Analysis.model_version_id, ModelVersion.state == now_live
                ),
                exists().where(live.pipeline == Analysis.pipeline, live.state == now_live),
            )
            .limit(1000)
            .with_for_update(skip_locked=True)
        )
        with self._sessions.begin() as session:
            changed = session.execute(
                update(Analysis)
                .where(
                    Analysis.id.in_(stale),
                    ModelVersion.pipeline == Analysis.pipeline,
                    ModelVersion.state == now_live,
                )
                .values(model_version_id=ModelVersion.id)
                .returning(Analysis.id)
                .execution_options(synchronize_session=False)
            ).all()
        return len(changed)

    def settle_studies(self) -> int:
        """Call studies settled in which nothing arrived for a while; a late image reopens them."""
        quiet = Study.last_received_at < NOW - timedelta(seconds=self._settings.settle_after_s)
        with self._sessions() as session:
            study_ids = session.scalars(
                select(WorklistItem.study_id)
                .join(Study, Study.id == WorklistItem.study_id)
                .where(~WorklistItem.settled, quiet)
                .order_by(WorklistItem.study_id)
                .limit(STUDIES_PER_ROUND)
            ).all()
        return sum(self._settle(study_id) for study_id in study_ids)

    def _settle(self, study_id: int) -> bool:
        quiet = Study.last_received_at < NOW - timedelta(seconds=self._settings.settle_after_s)
        with self._sessions.begin() as session:
            session.execute(
                select(WorklistItem.study_id)
                .where(WorklistItem.study_id == study_id)
                .with_for_update()
            )
            # Asked again under the lock: an image may have arrived since.
            if not session.execute(select(quiet).where(Study.id == study_id)).scalar_one():
                return False
            derive_item(session, study_id, self._settings, settled=True)
        return True

    def promote_studies(self) -> int:
        """Bring forward what has waited longer than the hard cap."""
        cap = timedelta(hours=self._settings.hard_cap_h)
        with self._sessions() as session:
            study_ids = session.scalars(
                select(WorklistItem.study_id)
                .join(Study, Study.id == WorklistItem.study_id)
                .where(
                    WorklistItem.listed,
                    WorklistItem.band == 2,
                    Study.first_received_at < NOW - cap,
                )
                # The order of the list's own index: only what stands in this band is looked at.
                .order_by(WorklistItem.due_at, WorklistItem.study_id)
                .limit(STUDIES_PER_ROUND)
            ).all()
        for study_id in study_ids:
            with self._sessions.begin() as session:
                requeue_order(session, derive_item(session, study_id, self._settings))
        return len(study_ids)

    def rerank_studies(self) -> int:
        """Follow the switch that turns AI ranking on and off."""
        changed = 0
        for _ in range(RERANK_STEPS):
            with self._sessions.begin() as session:
                step = rerank(session, self._settings, limit=RERANK_STEP)
            changed += step
            if step < RERANK_STEP:
                break
        return changed

    def ring_for_work(self) -> int:
        """Ring for queued rows whose ring was lost: at most one ring a thread that may be idle.

        How many workers there are is read from the ledger: those that hold work. One that holds
        none counts from its first ring on; what it is not rung for waits for the next round.
        """
        with self._sessions() as session:
            at_work = session.scalars(
                select(func.count(func.distinct(Analysis.worker))).where(
                    Analysis.state == AnalysisState.RUNNING
                )
            ).one()
            queued = session.scalars(
                select(Analysis.id)
                .where(
                    Analysis.state == AnalysisState.QUEUED,
                    Analysis.model_version_id.is_not(None),
                )
                .order_by(Analysis.lane, Analysis.band, Analysis.due_at, Analysis.id)
                .limit(self._settings.worker_threads * max(1, at_work))
            ).all()
        wanted = len(queued) - waiting_rings(self._celery) if queued else 0
        if wanted <= 0:
            return 0
        return wanted if ring(self._celery, queued[0], times=wanted) else 0

    def retain(self) -> int:
        """Delete what the site's rule names, where the site lets upkeep do so."""
        if not self._settings.retain_by_itself or time.monotonic() < self._retain_at_s:
            return 0
        done = Retention(self._sessions, self._settings).run(delete=True, studies=RETAIN_STUDIES)
        if done.studies < RETAIN_STUDIES:
            self._retain_at_s = time.monotonic() + RETAIN_EVERY_S
        return done.instances
