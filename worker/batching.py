"""Gather images from many threads into one forward pass; one thread owns the device.

Whatever waits goes along, most urgent first, up to ``max_batch``. The device waits for a fuller
batch only while more images are known to be on their way, and never longer than ``max_wait_s``:
a lone study pays nothing. A batch that fails is halved until the image to blame is alone. Before
an image is blamed the model must still answer its own warm-up image. If it does not, no image is to
blame: the model is broken where others still answer on the device, and else the device is lost.
"""

import heapq
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from threading import Condition, Thread
from typing import Any, Protocol
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from common import metrics
from common.errors import ImageError, OperatorError, PredictionError
from common.logs import get_logger
from worker.urgency import Urgency

log = get_logger()


class Prediction(Protocol):
    """What a model says of one image; ``model.pipelines`` has the real one."""

    @property
    def score(self) -> float: ...
    @property
    def insight_probability(self) -> float: ...
    @property
    def heatmap(self) -> NDArray[np.floating[Any]]: ...


class Predictor(Protocol):
    """A loaded model: images of one size go together only under the same one."""

    def predict(self, images: NDArray[np.float32]) -> Sequence[Prediction]:
        """Score images, float32 (B, S, S)."""
        ...

    def warm_up(self) -> None:
        """Score an image that is known to be good."""
        ...


class DeviceLostError(OperatorError):
    """The device or the model on it answers nothing any more; this process must be replaced."""


class ModelBrokenError(OperatorError):
    """This model answers nothing any more, others on the device do; it must be loaded again."""


@dataclass(order=True)
class _Waiting:
    urgency: Urgency
    number: int
    model: Predictor = field(compare=False)
    image: NDArray[np.float32] = field(compare=False)
    future: "Future[Prediction]" = field(compare=False)


class Batcher:
    """The queue in front of the device, and the thread that owns it."""

    def __init__(
        self,
        *,
        max_batch: int,
        max_wait_s: float,
        capacity: int = 256,
        on_device_lost: Callable[[DeviceLostError], None] = lambda error: None,
        others_answer: Callable[[Predictor], bool] = lambda model: False,
        on_model_broken: Callable[[Predictor], None] = lambda model: None,
    ) -> None:
        """Start the device's thread.

        Args:
            max_batch: Images per forward pass, at most.
            max_wait_s: The longest wait for a fuller batch.
            capacity: Images that may wait; beyond it ``submit`` does.
            on_device_lost: Told once that nothing on the device answers.
            others_answer: Says whether any model but this one still answers its warm-up image.
            on_model_broken: Told of a model that no longer answers while others do.
        """
        self._max_batch = max_batch
        self._max_wait_s = max_wait_s
        self._capacity = capacity
        self._on_device_lost = on_device_lost
        self._others_answer = others_answer
        self._on_model_broken = on_model_broken
        self._broken: WeakSet[Predictor] = WeakSet()
        self._limits: dict[int, int] = {}  # by model: what its memory took, after it ran out
        self._waiting: list[_Waiting] = []
        self._approaching = 0
        self._numbers = count()
        self._changed = Condition()
        self._stopped = False
        self._lost: DeviceLostError | None = None
        self._thread = Thread(target=self._run, name="device", daemon=True)
        self._thread.start()

    @contextmanager
    def approach(self) -> Iterator["Approach"]:
        """Announce an image that is on its way, whether or not it arrives."""
        coming = Approach(self)
        self._announce(1)
        try:
            yield coming
        finally:
            coming.end()

    def submit(
        self, model: Predictor, image: NDArray[np.float32], urgency: Urgency
    ) -> "Future[Prediction]":
        """Queue an image, float32 (S, S); waits while the queue is full.

        The future raises PredictionError if the model has no answer for this image,
        ModelBrokenError if it has none for any, DeviceLostError if no model has, CancelledError
        after ``stop``.
        """
        future: Future[Prediction] = Future()
        with self._changed:
            while len(self._waiting) >= self._capacity and not self._stopped:
                self._changed.wait()
            if self._stopped:
                raise self._lost or CancelledError
            entry = _Waiting(urgency, next(self._numbers), model, image, future)
            heapq.heappush(self._waiting, entry)
            self._changed.notify_all()
        return future

    def is_alive(self) -> bool:
        """Say whether the thread that owns the device lives."""
        return self._thread.is_alive()

    def stop(self, timeout_s: float = 0) -> bool:
        """Take nothing more, finish what waits within the time, cancel the rest.

        Returns:
            False if the device is still busy.
        """
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        with self._changed:
            left, self._waiting = self._waiting, []
        for entry in left:
            entry.future.cancel()
        self._thread.join(min(timeout_s, 1.0))
        return not self._thread.is_alive()

    def give_up(self, error: DeviceLostError) -> None:
        """Take the device for lost: everything that waits gets this error, and so does the owner.

        Also for an owner who waited too long: a hung device cannot notice that it hangs.
        """
        with self._changed:
            self._lost, self._stopped = error, True
            waiting, self._waiting = self._waiting, []
            self._changed.notify_all()
        for entry in waiting:
            if entry.future.set_running_or_notify_cancel():
                entry.future.set_exception(error)
        self._on_device_lost(error)

    def _announce(self, change: int) -> None:
        with self._changed:
            self._approaching += change
            self._changed.notify_all()

    def _run(self) -> None:
        while batch := self._next_batch():
            self._predict(batch)

    def _next_batch(self) -> list[_Waiting]:
        """Wait for work and take a batch of it; empty when stopped and nothing is left."""
        with self._changed:
            while not self._waiting:
                if self._stopped:
                    return []
                self._changed.wait()
            model = self._waiting[0].model
            limit = self._limits.get(id(model), self._max_batch)
            deadline = time.monotonic() + self._max_wait_s
            while self._approaching and not self._stopped and self._count(model) < limit:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    break
                self._changed.wait(remaining)
            batch, rest = [], []
            for entry in sorted(self._waiting):
                fits = entry.model is model and len(batch) < limit
                (batch if fits else rest).append(entry)
            self._waiting = rest  # sorted, hence a heap
            self._changed.notify_all()
        running = [entry for entry in batch if entry.future.set_running_or_notify_cancel()]
        return running or self._next_batch()

    def _count(self, model: Predictor) -> int:
        return sum(entry.model is model for entry in self._waiting)

    def _predict(self, batch: list[_Waiting]) -> None:
        model = batch[0].model
        ended: OperatorError | None = self._lost
        if ended is None and model in self._broken:
            ended = ModelBrokenError("the model no longer answers")
        if ended is not None:
            for entry in batch:
                entry.future.set_exception(ended)
            return
        metrics.BATCH_IMAGES.observe(len(batch))
        try:
            with metrics.DEVICE_SECONDS.time():
                predictions = model.predict(np.stack([entry.image for entry in batch]))
            if len(predictions) != len(batch):
                raise RuntimeError(f"{len(predictions)} predictions of {len(batch)} images")
        except Exception as error:  # noqa: BLE001 - the boundary: any error, also the device's own
            if len(batch) == 1:
                self._blame(batch[0], error)
                return
            log.warning("batch_halved", images=len(batch), reason=type(error).__name__)
            metrics.BATCHES_HALVED.inc()
            middle = (len(batch) + 1) // 2
            if _is_out_of_memory(error):
                self._limits[id(model)] = middle
            self._predict(batch[:middle])
            self._predict(batch[middle:])
            return
        for entry, prediction in zip(batch, predictions, strict=True):
            if _is_finite(prediction):
                entry.future.set_result(prediction)
            else:
                entry.future.set_exception(PredictionError("the model's answer is not finite"))

    def _blame(self, entry: _Waiting, error: Exception) -> None:
        """Fail an image that fails alone, provided that the model still answers at all."""
        try:
            entry.model.warm_up()
        except Exception as broken:
            if self._others_answer(entry.model):
                log.exception("model_broken", reason=type(broken).__name__)
                self._broken.add(entry.model)
                entry.future.set_exception(ModelBrokenError(f"no longer answers: {broken}"))
                self._on_model_broken(entry.model)
                return
            log.exception("device_lost", reason=type(broken).__name__)
            lost = DeviceLostError(f"the device no longer answers: {broken}")
            entry.future.set_exception(lost)
            self.give_up(lost)
            return
        log.warning("image_unpredictable", reason=f"{type(error).__name__}: {error}")
        failure = error
        if not isinstance(error, ImageError):
            failure = PredictionError(f"the model failed on this image: {type(error).__name__}")
            failure.__cause__ = error
        entry.future.set_exception(failure)


class Approach:
    """One image on its way to the device: it arrives, or it ends before."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self._under_way = True

    def submit(
        self, model: Predictor, image: NDArray[np.float32], urgency: Urgency
    ) -> "Future[Prediction]":
        """Arrive: see ``Batcher.submit``."""
        try:
            return self._batcher.submit(model, image, urgency)
        finally:
            self.end()

    def end(self) -> None:
        """Be no longer waited for. Safe to repeat."""
        if self._under_way:
            self._under_way = False
            self._batcher._announce(-1)


def _is_finite(prediction: Prediction) -> bool:
    return (
        math.isfinite(prediction.score)
        and math.isfinite(prediction.insight_probability)
        and bool(np.isfinite(prediction.heatmap).all())
    )


def _is_out_of_memory(error: Exception) -> bool:
    """Recognise torch's error by name: no torch here."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
