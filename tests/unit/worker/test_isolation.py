"""Suspect rows alone in a process: only what dies there is to blame."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from common.errors import UnreadablePixelsError
from common.settings import Settings
from model.bundles import Bundle
from model.eligibility import Policy
from tests.worker_parts import DEADLY, EchoPipeline, examine_text, load_echo, make_bundle
from worker.isolation import Alone, CrashedAloneError, Isolation, NotIsolatedError


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "echo")


@pytest.fixture
def isolation() -> Iterator[Isolation]:
    isolation = Isolation(Settings(), load_echo, examine_text)
    yield isolation
    isolation.stop()


def analyse(isolation: Isolation, bundle: Bundle, folder: Path, content: str) -> Alone:
    path = folder / content.replace(" ", "_")
    path.write_text(content)
    return isolation.analyse(path, bundle, Policy(), folder / "rendition")


def test_a_suspect_that_is_innocent_gets_its_result(
    isolation: Isolation, bundle: Bundle, tmp_path: Path
) -> None:
    alone = analyse(isolation, bundle, tmp_path, "score 1.5")
    assert alone.prediction is not None
    assert alone.prediction.score == 1.5
    assert alone.examined.reasons == ("no view position stated",)


@pytest.mark.parametrize("content", ["die", "devour", f"score {DEADLY}"])
def test_what_ends_its_own_process_is_a_crasher(
    isolation: Isolation, bundle: Bundle, tmp_path: Path, content: str
) -> None:
    with pytest.raises(CrashedAloneError):
        analyse(isolation, bundle, tmp_path, content)


def test_an_ordinary_error_is_an_ordinary_failure_there_too(
    isolation: Isolation, bundle: Bundle, tmp_path: Path
) -> None:
    with pytest.raises(UnreadablePixelsError):
        analyse(isolation, bundle, tmp_path, "unreadable")


def test_an_image_that_is_not_eligible_is_not_predicted(
    isolation: Isolation, bundle: Bundle, tmp_path: Path
) -> None:
    alone = analyse(isolation, bundle, tmp_path, "ineligible")
    assert (alone.examined.eligible, alone.prediction) == (False, None)


def load_nothing(bundle: Bundle, device: str) -> EchoPipeline:
    raise SystemExit(3)


def test_a_model_that_does_not_load_makes_no_crasher(bundle: Bundle, tmp_path: Path) -> None:
    isolation = Isolation(Settings(), load_nothing, examine_text)
    with pytest.raises(NotIsolatedError):
        analyse(isolation, bundle, tmp_path, "score 1")


def test_suspects_share_one_warm_process_one_after_the_other(
    isolation: Isolation, bundle: Bundle, tmp_path: Path
) -> None:
    contents = [f"score {number}" for number in range(6)]
    with ThreadPoolExecutor() as threads:
        found = list(threads.map(lambda text: analyse(isolation, bundle, tmp_path, text), contents))
    assert [alone.prediction and alone.prediction.score for alone in found] == [0, 1, 2, 3, 4, 5]
