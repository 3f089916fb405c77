"""Work on one suspect row at a time in a process of its own: decoding, model and all.

Rows that were at work when workers died come here. What dies here was alone, so its image is to
blame; nowhere else may an image fail as a crasher. The process is warm before the image is
opened, serves the suspects that come soon after, and then ends.
"""

import resource
from collections.abc import Callable
from concurrent.futures import CancelledError
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock, Timer, current_thread
from typing import TYPE_CHECKING, NamedTuple

from common.errors import ImageError
from common.settings import Settings
from worker.batching import Prediction
from worker.children import (
    Child,
    ChildDeadlineError,
    ChildDeathError,
    ChildMemoryError,
    ChildStartError,
    Upbringing,
)
from worker.decoding import Examine, examine_object
from worker.models import LoadedModel, Pipeline

if TYPE_CHECKING:
    from model.bundles import Bundle
    from model.eligibility import Policy
    from model.examination import Examined

LOAD_DEADLINE_S = 300.0
PREDICT_DEADLINE_S = 60.0
LINGER_S = 30.0

Load = Callable[["Bundle", str], Pipeline]


class CrashedAloneError(ImageError):
    """The image was alone in its process and ended it: it would do so again."""


class NotIsolatedError(ImageError):
    """The lone process did not get as far as opening the image."""


class Alone(NamedTuple):
    """What a lone process found. ``prediction`` is None for an image that is not eligible."""

    examined: "Examined"
    decoded_at: datetime
    prediction: Prediction | None


class Isolation:
    """One child at most; threads with suspect rows queue for it."""

    def __init__(self, settings: Settings, load: Load, examine: Examine = examine_object) -> None:
        self._load = load
        self._examine = examine
        self._device = settings.device
        self._memory_bytes = settings.decode_memory_bytes
        self._max_pixels = settings.max_pixels
        self._deadline_s = settings.decode_deadline_s + PREDICT_DEADLINE_S
        self._child = Child("isolation", Upbringing(one_thread=False))
        self._turn = Lock()
        self._retirement: Timer | None = None
        self._stopped = False

    def analyse(self, path: Path, bundle: "Bundle", policy: "Policy", rendition: Path) -> Alone:
        """Examine and score one object, alone.

        Raises:
            CancelledError: the worker stops.
            CrashedAloneError: the process died, hung or ran out of memory over this object.
            NotIsolatedError: it did so before it opened the object.
            ImageError, StorageUnavailableError: as in a decoder.
        """
        with self._turn:
            if self._retirement is not None:
                self._retirement.cancel()
            try:
                return self._analyse(path, bundle, policy, rendition)
            finally:
                self._retirement = Timer(LINGER_S, self._retire)
                self._retirement.daemon = True
                self._retirement.start()

    def stop(self) -> None:
        """Kill the child under its job; whoever waits for it gets CancelledError."""
        self._stopped = True
        self._child.interrupt()

    def _retire(self) -> None:
        with self._turn:
            if self._retirement is current_thread():  # else a suspect came in the same instant
                self._child.kill()

    def _analyse(self, path: Path, bundle: "Bundle", policy: "Policy", rendition: Path) -> Alone:
        if self._stopped:
            raise CancelledError
        try:
            self._child.run(
                load_alone, self._load, bundle, self._device, deadline_s=LOAD_DEADLINE_S
            )
        except (ChildStartError, ChildDeathError, ChildDeadlineError) as error:
            if self._stopped:
                raise CancelledError from error
            raise NotIsolatedError(f"the lone process did not get ready: {error}") from error
        try:
            return self._child.run(
                analyse_alone,
                self._examine,
                path,
                policy,
                rendition,
                self._max_pixels,
                self._memory_bytes,
                deadline_s=self._deadline_s,
            )
        except (ChildDeathError, ChildDeadlineError, ChildMemoryError) as error:
            if self._stopped:
                raise CancelledError from error
            raise CrashedAloneError(f"alone in its process: {error}") from error


_loaded: LoadedModel | None = None  # in the child only


def load_alone(load: Load, bundle: "Bundle", device: str) -> None:
    """Load and warm the model, once; a job of the child."""
    global _loaded
    if _loaded is None or _loaded.bundle.sha256 != bundle.sha256:
        _loaded = LoadedModel(0, bundle, load(bundle, device))
        _loaded.warm_up()


def analyse_alone(
    examine: Examine,
    path: Path,
    policy: "Policy",
    rendition: Path,
    max_pixels: int,
    memory_bytes: int,
) -> Alone:
    """Examine and score one object; a job of the child, after ``load_alone``."""
    if _loaded is None:
        raise RuntimeError("no model was loaded")
    # The model's libraries map far more than they use: the limit counts from where they stand.
    limit = _address_space_bytes() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    try:
        examined = examine(path, _loaded.bundle, policy, rendition, max_pixels)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    decoded_at = datetime.now(UTC)
    if not examined.eligible or examined.pixels is None:
        return Alone(examined, decoded_at, None)
    (prediction,) = _loaded.predict(examined.pixels[None])
    return Alone(examined._replace(pixels=None), decoded_at, prediction)


def _address_space_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()
