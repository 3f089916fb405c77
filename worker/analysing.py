"""One analysis from claim to committed result; what became of it is the row's alone."""

import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Event
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker
from structlog.contextvars import bound_contextvars

from common import metrics
from common.archive import Archive
from common.database import storage_errors
from common.errors import ImageError, SenderError, StorageUnavailableError
from common.lifecycle import Claim, fail, finish, refuse
from common.logs import get_logger
from common.settings import Settings
from common.states import AnalysisState
from common.tables import Analysis
from worker.batching import Batcher, DeviceLostError, ModelBrokenError
from worker.claiming import Claims
from worker.decoding import Decoder
from worker.isolation import CrashedAloneError, Isolation
from worker.leases import LeaseKeeper
from worker.models import LoadedModel, Models
from worker.results import make_result
from worker.urgency import urgency_of

if TYPE_CHECKING:
    from model.eligibility import Policy
    from model.examination import Examined

PERMIT_ROWS = 100  # rows done under one message, so that lost messages only delay
DEVICE_DEADLINE_S = 600.0
STORE_RETRY_S = 2.0

log = get_logger()


@dataclass(frozen=True)
class Ending:
    """How an analysis ends: the word for it, and what writes it; False if it is not ours."""

    end: str  # done, not_eligible, error
    write: Callable[[Session], bool]


class Analyst:
    """What a worker's threads do; every part is passed in."""

    def __init__(
        self,
        *,
        sessions: sessionmaker[Session],
        archive: Archive,
        models: Models,
        claims: Claims,
        leases: LeaseKeeper,
        decoder: Decoder,
        batcher: Batcher,
        isolation: Isolation,
        policy: "Policy",
        settings: Settings,
    ) -> None:
        self._sessions = sessions
        self._archive = archive
        self._models = models
        self._claims = claims
        self._leases = leases
        self._decoder = decoder
        self._batcher = batcher
        self._isolation = isolation
        self._policy = policy
        self._settings = settings

    def serve(self, rung_for: int | None = None) -> int:
        """Work off one permit: row after row while there are any, up to ``PERMIT_ROWS``.

        Args:
            rung_for: The analysis that the bell was rung for; only for tracing.

        Returns:
            How many rows were worked on.
        """
        with bound_contextvars(rung_for=rung_for):
            for done in range(PERMIT_ROWS):
                claimed = self._claims.take()
                if claimed is None:
                    return done
                self.analyse(claimed)
        return PERMIT_ROWS

    def analyse(self, claimed: Claim) -> None:
        """Work on one claimed row until its end is written, or it is given up."""
        bound = bound_contextvars(
            analysis_id=claimed.analysis_id,
            attempt=claimed.attempt,
            sop_instance_uid=claimed.sop_instance_uid,
        )
        waited = claimed.claimed_at - claimed.queued_at
        metrics.HOP_SECONDS.labels("queued_claimed").observe(max(0.0, waited.total_seconds()))
        before_claim_s = (claimed.claimed_at - claimed.received_at).total_seconds()
        began_s = time.monotonic()
        with bound, self._leases.hold(claimed) as lost:
            ending = self._find_ending(claimed, lost)
            if ending is not None and self._store(claimed, ending, lost):
                metrics.ENDED.labels(ending.end).inc()
                whole_s = before_claim_s + time.monotonic() - began_s
                metrics.HOP_SECONDS.labels("received_committed").observe(max(0.0, whole_s))

    def _find_ending(self, claimed: Claim, lost: Event) -> Ending | None:
        """Do the work; None if the row is left to its lease, for whoever comes next."""
        settings = self._settings
        try:
            with self._models.using(claimed.model_version_id) as model:
                if claimed.losses >= settings.max_losses:
                    return self._work_alone(claimed, model)
                return self._work(claimed, model, lost)
        except CrashedAloneError as error:
            kind, reason, for_good = metrics.reason_of(error), str(error), True
        except (ImageError, SenderError) as error:
            kind, reason, for_good = metrics.reason_of(error), str(error), False
        except StorageUnavailableError as error:
            metrics.LOSSES.labels("storage").inc()
            self._claims.pause(str(error))
            return None
        except (CancelledError, DeviceLostError, ModelBrokenError) as error:
            what = "device" if isinstance(error, DeviceLostError) else "stopped"
            metrics.LOSSES.labels(what).inc()
            log.warning("analysis_given_up", reason=type(error).__name__)
            return None
        except Exception as error:  # the boundary: a defect fails its row, and never loops
            log.exception("analysis_defective")
            kind, for_good = "defect", False
            reason = f"defect: {type(error).__name__}; see the worker's log"
        reason = reason or kind
        metrics.FAILURES.labels(kind).inc()
        log.warning("analysis_failed", reason=reason, for_good=for_good)
        text = reason.replace("\0", "")  # Postgres' text knows no NUL
        return Ending(
            "error",
            lambda session: fail(session, claimed, text, settings, for_good=for_good),
        )

    def _work(self, claimed: Claim, model: LoadedModel, lost: Event) -> Ending | None:
        """Decode in a child, predict in a batch with others."""
        urgency = urgency_of(claimed)
        began_s = time.monotonic()
        rendition = self._archive.rendition_name(claimed.sha256)
        with self._batcher.approach() as approach:
            examined = self._decoder.decode(
                self._archive.path(claimed.path),
                model.bundle,
                self._policy,
                self._archive.path(rendition),
                urgency,
            )
            decoded_at, decoded_s = datetime.now(UTC), time.monotonic()
            metrics.HOP_SECONDS.labels("claimed_decoded").observe(decoded_s - began_s)
            if not examined.eligible or examined.pixels is None:
                return self._refusal(claimed, examined, rendition)
            if lost.is_set():
                metrics.LOSSES.labels("lease_lost").inc()
                log.warning("analysis_dropped", reason="lease lost before prediction")
                return None
            future = approach.submit(model, examined.pixels, urgency)
        try:
            prediction = future.result(DEVICE_DEADLINE_S)
        except TimeoutError:
            metrics.LOSSES.labels("device").inc()
            self._batcher.give_up(DeviceLostError(f"no answer in {DEVICE_DEADLINE_S:g} s"))
            return None
        metrics.HOP_SECONDS.labels("decoded_scored").observe(time.monotonic() - decoded_s)
        result = make_result(
            examined,
            prediction,
            model.bundle,
            rendition=rendition if examined.rendition_written else None,
            decoded_at=decoded_at,
            predicted_at=datetime.now(UTC),
        )
        return Ending("done", lambda session: finish(session, claimed, result, self._settings))

    def _work_alone(self, claimed: Claim, model: LoadedModel) -> Ending:
        """Do everything in a process of its own: this row was there when workers died."""
        log.warning("analysis_isolated", losses=claimed.losses)
        rendition = self._archive.rendition_name(claimed.sha256)
        alone = self._isolation.analyse(
            self._archive.path(claimed.path),
            model.bundle,
            self._policy,
            self._archive.path(rendition),
        )
        if alone.prediction is None:
            return self._refusal(claimed, alone.examined, rendition)
        result = make_result(
            alone.examined,
            alone.prediction,
            model.bundle,
            rendition=rendition if alone.examined.rendition_written else None,
            decoded_at=alone.decoded_at,
            predicted_at=datetime.now(UTC),
        )
        return Ending("done", lambda session: finish(session, claimed, result, self._settings))

    def _refusal(self, claimed: Claim, examined: "Examined", rendition: str) -> Ending:
        return Ending(
            "not_eligible",
            lambda session: refuse(
                session,
                claimed,
                examined.reasons,
                self._settings,
                rendition=rendition if examined.rendition_written else None,
                rows=examined.rows,
                columns=examined.columns,
            ),
        )

    def _store(self, claimed: Claim, ending: Ending, lost: Event) -> bool:
        """Write an ending; while the database is away, keep it as long as the lease may live.

        Returns:
            Whether the row ended so.
        """
        began_s = time.monotonic()
        give_up_at = time.monotonic() + self._settings.lease_s
        repeated = False
        while True:
            try:
                with storage_errors(), self._sessions.begin() as session:
                    if repeated and _has_ended(session, claimed):
                        return True  # the commit whose fate was unknown had come through
                    ours = ending.write(session)
            except StorageUnavailableError as error:
                if lost.is_set() or time.monotonic() > give_up_at:
                    metrics.LOSSES.labels("storage").inc()
                    log.error("result_given_up", reason=str(error))
                    self._claims.pause(str(error))
                    return False
                log.warning("result_kept", reason=str(error))
                repeated = True
                time.sleep(STORE_RETRY_S)
                continue
            if ours:
                took_s = time.monotonic() - began_s
                metrics.HOP_SECONDS.labels("scored_committed").observe(took_s)
                log.info("analysis_ended")
            else:
                metrics.LATE.inc()
                log.warning("result_discarded", reason="the lease was lost; another has the row")
            return ours


def _has_ended(session: Session, claimed: Claim) -> bool:
    """Say whether this very attempt has already written its end."""
    row = session.execute(
        select(Analysis.state, Analysis.attempt).where(Analysis.id == claimed.analysis_id)
    ).one()
    return row.attempt == claimed.attempt and row.state is not AnalysisState.RUNNING
