"""The models that this worker has loaded: live versions, verified, warm, loaded once.

An activation is noticed by asking every few seconds. The new version is loaded beside the old
one, which stays until nothing running needs it; only versions that are loaded are claimed.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from common import metrics
from common.database import storage_errors
from common.errors import BundleError, StorageUnavailableError
from common.logs import get_logger
from common.states import ModelState
from common.tables import ModelVersion
from worker.batching import Prediction

if TYPE_CHECKING:
    from model.bundles import Bundle

RETRY_AFTER_S = 60.0

Locate = Callable[[ModelVersion], "Bundle"]

log = get_logger()


class Pipeline(Protocol):
    """What ``model.pipelines.load_pipeline`` gives."""

    def predict(self, images: NDArray[np.float32]) -> Sequence[Any]:
        """Score images, float32 (B, S, S)."""
        ...


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """One model version on the device."""

    version_id: int
    bundle: "Bundle"
    pipeline: Pipeline

    def predict(self, images: NDArray[np.float32]) -> Sequence[Prediction]:
        """Score images, float32 (B, S, S)."""
        return self.pipeline.predict(images)

    def warm_up(self) -> None:
        """Score a grey image: once before the first real one, and when an image is blamed."""
        side = self.bundle.preprocessing.size_px
        self.pipeline.predict(np.zeros((1, side, side), dtype=np.float32))


def locate_bundle(version: ModelVersion) -> "Bundle":
    """Read the bundle of a version: where it was registered, else among the shipped ones.

    Raises:
        BundleError: neither place holds these very bytes.
    """
    from model.bundles import SHIPPED, find_bundles, read_bundle

    try:
        bundle = read_bundle(Path(version.folder))
        if bundle.sha256 == version.bundle_sha256:
            return bundle
        reason = f"{version.folder} holds another bundle than was registered"
    except (BundleError, OSError) as error:
        reason = str(error)
    # Another machine, or another checkout of the same release, ships it elsewhere.
    for bundle in find_bundles(SHIPPED):
        if bundle.sha256 == version.bundle_sha256:
            return bundle
    raise BundleError(reason)


class Models:
    """Load what is live, drop what is neither live nor in use."""

    def __init__(
        self,
        sessions: sessionmaker[Session],
        load: Callable[["Bundle"], Pipeline],
        locate: Locate = locate_bundle,
    ) -> None:
        self._sessions = sessions
        self._load = load
        self._locate = locate
        self._loaded: dict[int, LoadedModel] = {}
        self._live: frozenset[int] = frozenset()
        self._users: dict[int, int] = {}
        self._retry_at: dict[int, float] = {}
        self._lock = Lock()

    def refresh(self) -> None:
        """Load newly activated versions and drop those that nothing needs any more.

        Raises:
            StorageUnavailableError: the database is away; what is loaded stays.
        """
        with storage_errors(), self._sessions() as session:
            versions = session.scalars(
                select(ModelVersion).where(ModelVersion.state == ModelState.LIVE)
            ).all()
        for version in versions:
            if version.id not in self._loaded and self._retry_at.get(version.id, 0) <= (
                time.monotonic()
            ):
                self._try_load(version)
        with self._lock:
            self._live = frozenset(version.id for version in versions)
            idle = [key for key in self._loaded if key not in self._live | self._users.keys()]
            for version_id in idle:
                bundle = self._loaded.pop(version_id).bundle
                metrics.MODEL.labels(bundle.pipeline, bundle.name, bundle.version).set(0)
                log.info("model_dropped", model_version_id=version_id)

    def claimable(self) -> list[int]:
        """Give the versions that are live and loaded."""
        with self._lock:
            return [version_id for version_id in self._loaded if version_id in self._live]

    @contextmanager
    def using(self, version_id: int) -> Iterator[LoadedModel]:
        """Hold a loaded version while it is worked with.

        Raises:
            BundleError: it is not loaded.
        """
        with self._lock:
            model = self._loaded.get(version_id)
            if model is None:
                raise BundleError(f"model version {version_id} is not loaded")
            self._users[version_id] = self._users.get(version_id, 0) + 1
        try:
            yield model
        finally:
            with self._lock:
                self._users[version_id] -= 1
                if not self._users[version_id]:
                    del self._users[version_id]

    def others_answer(self, broken: object) -> bool:
        """Say whether a loaded model other than this one still answers its warm-up image."""
        with self._lock:
            others = [model for model in self._loaded.values() if model is not broken]
        for model in others:
            try:
                model.warm_up()
            except Exception as error:  # noqa: BLE001 - the boundary: any error is an answer here
                log.warning("model_silent", version_id=model.version_id, reason=str(error))
            else:
                return True
        return False

    def drop_broken(self, broken: object) -> None:
        """Claim nothing more for a model that no longer answers; load it again after a while."""
        with self._lock:
            for version_id, model in list(self._loaded.items()):
                if model is broken:
                    del self._loaded[version_id]
                    self._retry_at[version_id] = time.monotonic() + RETRY_AFTER_S

    def watch(self, stopped: Event, every_s: float = 3.0) -> None:
        """Refresh until stopped; the body of a thread."""
        while not stopped.wait(every_s):
            try:
                self.refresh()
            except StorageUnavailableError as error:
                log.warning("models_not_refreshed", reason=str(error))
            except Exception:  # the boundary: the loaded models go on working
                log.exception("models_not_refreshed")

    def _try_load(self, version: ModelVersion) -> None:
        started = time.monotonic()
        try:
            bundle = self._locate(version)
            bundle.load_gate()  # the decoding children would find out only at the first image
            model = LoadedModel(version.id, bundle, self._load(bundle))
            model.warm_up()
        except Exception:  # the boundary: one bad bundle must not stop the other pipelines
            log.exception("model_not_loaded", pipeline=version.pipeline, name=version.name)
            self._retry_at[version.id] = time.monotonic() + RETRY_AFTER_S
            return
        with self._lock:
            self._loaded[version.id] = model
        metrics.MODEL.labels(bundle.pipeline, bundle.name, bundle.version).set(1)
        log.info(
            "model_loaded",
            pipeline=version.pipeline,
            name=version.name,
            version=version.version,
            model_version_id=version.id,
            took_s=round(time.monotonic() - started, 2),
        )
