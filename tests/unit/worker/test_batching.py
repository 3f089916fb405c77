"""The batcher with models passed in: order, halving, blame, waiting, stopping."""

import time
from concurrent.futures import CancelledError, Future
from datetime import UTC, datetime, timedelta
from threading import Event, Thread

import numpy as np
import pytest
from numpy.typing import NDArray

from common.errors import PredictionError
from tests.worker_parts import NOT_FINITE, POISON, Answer, EchoPipeline, image_of
from worker.batching import Batcher, DeviceLostError, ModelBrokenError, Prediction
from worker.urgency import Urgency

START = datetime(2026, 11, 22, tzinfo=UTC)


def urgency(number: int, band: int = 2) -> Urgency:
    return (band, START + timedelta(minutes=number), number)


class HeldModel(EchoPipeline):
    """Waits in its first batch until it is let go, so that others queue up meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.let_go = Event(), Event()

    def predict(self, images: NDArray[np.float32]) -> list[Prediction]:
        self.reached.set()
        assert self.let_go.wait(10)
        return list(super().predict(images))


def submit_behind(
    batcher: Batcher, model: HeldModel, scores: list[float]
) -> list["Future[Prediction]"]:
    """Queue images while the device is busy with another, then let it go on."""
    first = batcher.submit(model, image_of(0), urgency(0))
    assert model.reached.wait(10)
    futures = [
        batcher.submit(model, image_of(score), urgency(number))
        for number, score in enumerate(scores, start=1)
    ]
    model.let_go.set()
    first.result(10)
    return futures


def test_whatever_waits_goes_into_one_batch_most_urgent_first() -> None:
    model, batcher = HeldModel(), Batcher(max_batch=3, max_wait_s=0.01)
    first = batcher.submit(model, image_of(0), urgency(0))
    assert model.reached.wait(10)
    places = {1.0: urgency(9), 2.0: urgency(1), 3.0: urgency(99, band=0), 4.0: urgency(5)}
    futures = [batcher.submit(model, image_of(score), place) for score, place in places.items()]
    model.let_go.set()
    assert [future.result(10).score for future in [first, *futures]] == [0, 1, 2, 3, 4]
    assert model.batches == [[0], [3, 2, 4], [1]]
    assert batcher.stop(1)


def test_images_of_different_models_never_share_a_batch() -> None:
    first, second = HeldModel(), EchoPipeline()
    batcher = Batcher(max_batch=8, max_wait_s=0.01)
    futures = [batcher.submit(first, image_of(0), urgency(0))]
    assert first.reached.wait(10)
    for number in range(1, 5):
        model = first if number % 2 else second
        futures.append(batcher.submit(model, image_of(number), urgency(number)))
    first.let_go.set()
    assert [future.result(10).score for future in futures] == [0, 1, 2, 3, 4]
    assert (first.batches, second.batches) == ([[0], [1, 3]], [[2, 4]])
    batcher.stop()


def test_an_image_that_fails_is_found_by_halving_and_fails_alone() -> None:
    model, batcher = HeldModel(), Batcher(max_batch=16, max_wait_s=0.01)
    futures = submit_behind(batcher, model, [1, 2, 3, POISON, 5, 6, 7, 8])
    for number, future in enumerate(futures, start=1):
        if number == 4:
            with pytest.raises(PredictionError, match="failed on this image"):
                future.result(10)
        else:
            assert future.result(10).score == number
    assert model.batches[1] == [1, 2, 3, POISON, 5, 6, 7, 8]
    assert [POISON] in model.batches
    batcher.stop()


def test_an_answer_that_is_not_finite_fails_that_image_only() -> None:
    model, batcher = HeldModel(), Batcher(max_batch=16, max_wait_s=0.01)
    good, bad = submit_behind(batcher, model, [1, NOT_FINITE])
    assert good.result(10).score == 1
    with pytest.raises(PredictionError, match="not finite"):
        bad.result(10)
    assert len(model.batches) == 2
    batcher.stop()


def test_a_device_out_of_memory_gets_smaller_batches_from_then_on() -> None:
    class OutOfMemoryError(RuntimeError):
        pass

    class SmallModel(HeldModel):
        def predict(self, images: NDArray[np.float32]) -> list[Prediction]:
            if len(images) > 2:
                self.batches.append([float(image[0, 0]) for image in images])
                raise OutOfMemoryError("CUDA out of memory")
            return super().predict(images)

    model, batcher = SmallModel(), Batcher(max_batch=4, max_wait_s=0.01)
    futures = submit_behind(batcher, model, [1, 2, 3, 4, 5, 6, 7, 8])
    assert [future.result(10).score for future in futures] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [len(batch) for batch in model.batches] == [1, 4, 2, 2, 2, 2]
    batcher.stop()


def test_no_image_is_blamed_when_the_device_answers_nothing_any_more() -> None:
    told: list[Exception] = []
    model = HeldModel()
    batcher = Batcher(max_batch=2, max_wait_s=0.01, on_device_lost=told.append)
    first = batcher.submit(model, image_of(0), urgency(0))
    assert model.reached.wait(10)
    futures = [batcher.submit(model, image_of(n), urgency(n)) for n in (1, 2, 3)]
    model.broken = True
    model.let_go.set()
    for future in [first, *futures]:
        with pytest.raises(DeviceLostError):
            future.result(10)
    with pytest.raises(DeviceLostError):
        batcher.submit(model, image_of(1), urgency(1))
    assert len(told) == 1


def test_a_model_that_answers_nothing_any_more_takes_no_other_with_it() -> None:
    dead: list[object] = []
    lost: list[Exception] = []
    broken, good = HeldModel(), EchoPipeline()
    batcher = Batcher(
        max_batch=2,
        max_wait_s=0.01,
        on_device_lost=lost.append,
        others_answer=lambda model: model is not good,
        on_model_broken=dead.append,
    )
    first = batcher.submit(broken, image_of(0), urgency(0))
    assert broken.reached.wait(10)
    futures = [batcher.submit(broken, image_of(n), urgency(n)) for n in (1, 2, 3)]
    others = [batcher.submit(good, image_of(n), urgency(n + 9)) for n in (4, 5)]
    broken.broken = True
    broken.let_go.set()
    for future in [first, *futures]:
        with pytest.raises(ModelBrokenError):
            future.result(10)
    assert [future.result(10).score for future in others] == [4, 5]
    assert (dead, lost) == ([broken], [])
    batcher.stop()


def test_a_lone_image_waits_for_nobody() -> None:
    model, batcher = EchoPipeline(), Batcher(max_batch=16, max_wait_s=5)
    started = time.monotonic()
    with batcher.approach() as approach:
        future = approach.submit(model, image_of(1), urgency(1))
    assert future.result(10).score == 1
    assert time.monotonic() - started < 1
    batcher.stop()


def test_the_device_waits_for_what_approaches_but_not_longer_than_allowed() -> None:
    model, batcher = EchoPipeline(), Batcher(max_batch=16, max_wait_s=0.3)
    with batcher.approach(), batcher.approach() as one, batcher.approach() as other:
        started = time.monotonic()
        futures = [one.submit(model, image_of(1), urgency(1))]
        time.sleep(0.05)
        futures.append(other.submit(model, image_of(2), urgency(2)))
        assert [future.result(10).score for future in futures] == [1, 2]
        assert 0.25 < time.monotonic() - started < 2
    assert model.batches == [[1, 2]]
    batcher.stop()


def test_the_wait_ends_when_what_approached_has_come_or_gone() -> None:
    model, batcher = EchoPipeline(), Batcher(max_batch=16, max_wait_s=5)
    started = time.monotonic()
    with batcher.approach() as one:
        with batcher.approach():  # turns out not to be eligible
            future = one.submit(model, image_of(1), urgency(1))
        assert future.result(10).score == 1
    assert time.monotonic() - started < 1
    batcher.stop()


def test_stopping_finishes_what_waits_if_there_is_time() -> None:
    model, batcher = HeldModel(), Batcher(max_batch=1, max_wait_s=0.01)
    futures = submit_behind(batcher, model, [1, 2, 3])
    assert batcher.stop(10)
    assert [future.result(0).score for future in futures] == [1, 2, 3]
    with pytest.raises(CancelledError):
        batcher.submit(model, image_of(1), urgency(1))


def test_stopping_leaves_no_future_unresolved() -> None:
    model, batcher = HeldModel(), Batcher(max_batch=1, max_wait_s=0.01)
    first = batcher.submit(model, image_of(0), urgency(0))
    assert model.reached.wait(10)
    second = batcher.submit(model, image_of(1), urgency(1))
    assert not batcher.stop(0)
    with pytest.raises(CancelledError):
        second.result(1)
    model.let_go.set()
    assert first.result(10).score == 0


def test_a_full_queue_makes_the_sender_wait() -> None:
    model, batcher = HeldModel(), Batcher(max_batch=1, max_wait_s=0.01, capacity=1)
    batcher.submit(model, image_of(0), urgency(0))
    assert model.reached.wait(10)
    batcher.submit(model, image_of(1), urgency(1))
    sender = Thread(target=batcher.submit, args=(model, image_of(2), urgency(2)))
    sender.start()
    sender.join(0.1)
    assert sender.is_alive()
    model.let_go.set()
    sender.join(10)
    assert not sender.is_alive()
    assert batcher.stop(10)
    assert model.batches == [[0], [1], [2]]


def test_a_cancelled_image_is_not_predicted() -> None:
    model, batcher = HeldModel(), Batcher(max_batch=4, max_wait_s=0.01)
    first = batcher.submit(model, image_of(0), urgency(0))
    assert model.reached.wait(10)
    batcher.submit(model, image_of(1), urgency(1)).cancel()
    last = batcher.submit(model, image_of(2), urgency(2))
    model.let_go.set()
    assert [first.result(10).score, last.result(10).score] == [0, 2]
    assert model.batches == [[0], [2]]
    batcher.stop()


def test_a_model_that_loses_count_fails_nobody_with_anothers_answer() -> None:
    class MiscountingModel(HeldModel):
        def predict(self, images: NDArray[np.float32]) -> list[Prediction]:
            answers = super().predict(images)
            return answers if len(answers) == 1 else [*answers, Answer(0)]

    model, batcher = MiscountingModel(), Batcher(max_batch=4, max_wait_s=0.01)
    futures = submit_behind(batcher, model, [1, 2, 3])
    assert [future.result(10).score for future in futures] == [1, 2, 3]
    batcher.stop()
