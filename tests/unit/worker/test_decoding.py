"""Decoders that really hang, crash and devour memory; nothing is pretended."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from common.errors import (
    DecodeCrashError,
    DecodeTimeoutError,
    OversizedImageError,
    StorageUnavailableError,
    UnreadablePixelsError,
)
from common.settings import Settings
from model.bundles import Bundle
from model.eligibility import Policy
from model.examination import Examined
from tests.worker_parts import examine_text, imported_modules, make_bundle
from worker.children import Child, ChildDeathError, ChildStartError, Upbringing
from worker.decoding import Decoder, examine_object

NOW = datetime(2026, 11, 22, tzinfo=UTC)
Decode = Callable[[str], Examined]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "echo")


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    settings = Settings(decode_processes=1, decode_deadline_s=1)
    decoder = Decoder(settings, examine_text)
    yield decoder
    decoder.stop()


@pytest.fixture
def decode(decoder: Decoder, bundle: Bundle, tmp_path: Path) -> Decode:
    def decode(content: str) -> Examined:
        path = tmp_path / "object"
        path.write_text(content)
        return decoder.decode(path, bundle, Policy(), tmp_path / "rendition", (2, NOW, 1))

    return decode


def test_a_child_returns_the_model_sized_image(decode: Decode) -> None:
    examined = decode("score 1.5")
    assert examined.pixels is not None
    assert examined.pixels.shape == (16, 16)
    assert examined.pixels[0, 0] == 1.5


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("hang", DecodeTimeoutError, "no result within 1 s"),
        ("die", DecodeCrashError, "signal SIGSEGV"),
        ("devour", OversizedImageError, "more memory needed"),
        ("unreadable", UnreadablePixelsError, "cut off"),
        ("offline", StorageUnavailableError, "Input/output"),
        ("defect", KeyError, "a slip of ours"),
    ],
)
def test_a_bad_object_costs_only_itself(
    decode: Decode,
    content: str,
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        decode(content)
    assert decode("score 2").eligible


def test_a_decoder_killed_while_idle_is_replaced(tmp_path: Path) -> None:
    child = Child("idle", Upbringing())
    assert child.run(os.getpid, deadline_s=30) == child.pid
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    time.sleep(0.2)
    assert child.run(os.getpid, deadline_s=30) == child.pid
    child.kill()


def test_a_child_that_cannot_start_blames_no_job() -> None:
    child = Child("unborn", Upbringing(modules=("no_such_module",)))
    with pytest.raises(ChildStartError, match="exit status 1"):
        child.run(os.getpid, deadline_s=5)


def test_a_hanging_child_ends_even_if_nobody_kills_it() -> None:
    child = Child("orphan", Upbringing())
    child.run(os.getpid, deadline_s=30)
    with ThreadPoolExecutor() as threads:
        job = threads.submit(child.run, signal.pause, deadline_s=0.2)
        with pytest.raises(Exception, match="no result within"):
            job.result(10)
    # Its own alarm: five seconds after the deadline, whatever native code it hangs in.
    child = Child("orphan", Upbringing())
    with pytest.raises(ChildDeathError, match="SIGALRM"):
        child.run(_hang_under_a_short_alarm, deadline_s=30)


def _hang_under_a_short_alarm() -> None:
    assert signal.getitimer(signal.ITIMER_REAL)[0] > 30
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    signal.pause()


def test_decoding_processes_hold_no_torch_and_one_thread(bundle: Bundle, tmp_path: Path) -> None:
    job: Any = imported_modules
    decoder = Decoder(Settings(decode_processes=1), job)
    answer: Any = decoder.decode(
        tmp_path / "object", bundle, Policy(), tmp_path / "rendition", (2, NOW, 1)
    )
    decoder.stop()
    modules, threads = answer
    assert "model.examination" in modules
    assert not {"torch", "timm", "celery", "sqlalchemy"} & modules
    assert threads == {"cv2": 1}


def test_the_most_urgent_object_gets_the_next_free_decoder(
    decoder: Decoder, bundle: Bundle, tmp_path: Path
) -> None:
    order: list[int] = []

    def decode(band: int, content: str) -> None:
        path = tmp_path / f"object{band}"
        path.write_text(content)
        try:
            decoder.decode(path, bundle, Policy(), tmp_path / "rendition", (band, NOW, band))
        except DecodeTimeoutError:
            return
        order.append(band)

    with ThreadPoolExecutor() as threads:
        threads.submit(decode, 9, "hang")
        time.sleep(0.3)
        for band in (2, 1, 0):
            threads.submit(decode, band, "score 1")
    assert order == [0, 1, 2]


def test_stopping_cancels_what_runs_and_what_waits(bundle: Bundle, tmp_path: Path) -> None:
    decoder = Decoder(Settings(decode_processes=1), examine_text)
    path = tmp_path / "object"
    path.write_text("hang")
    arguments = (path, bundle, Policy(), tmp_path / "rendition", (2, NOW, 1))
    with ThreadPoolExecutor() as threads:
        jobs = [threads.submit(decoder.decode, *arguments) for _ in range(2)]
        time.sleep(2.5)
        decoder.stop()
        for job in jobs:
            with pytest.raises(CancelledError):
                job.result(10)


def test_an_object_that_the_archive_lost_is_its_own_failure(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UnreadablePixelsError, match="no longer holds"):
        examine_object(tmp_path / "gone.dcm", bundle, Policy(), tmp_path / "ab" / "r.png", 1000)


def test_an_archive_that_is_away_is_no_objects_failure(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailableError):
        examine_object(
            tmp_path / "unmounted" / "gone.dcm", bundle, Policy(), tmp_path / "r.png", 1000
        )
