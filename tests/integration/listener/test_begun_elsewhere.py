"""What a listener takes for new, and another has registered meanwhile."""

from collections.abc import Callable
from threading import Barrier, Thread

import pytest
from pydicom.dataset import Dataset
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from common.tables import Analysis, Instance, Patient, Series, SetAside, Study, WorklistItem
from tests.integration.listener.conftest import Listen, radiograph, send

STORED, CONFLICT = 0x0000, 0xC001


def counts(sessions: sessionmaker[Session]) -> dict[str, int]:
    with sessions() as session:
        return {
            table.__tablename__: session.scalar(select(func.count()).select_from(table)) or 0
            for table in (Patient, Study, Series, Instance, Analysis, WorklistItem, SetAside)
        }


def same_study(first: Dataset) -> Dataset:
    return radiograph(StudyInstanceUID=first.StudyInstanceUID)


def same_series(first: Dataset) -> Dataset:
    return radiograph(
        StudyInstanceUID=first.StudyInstanceUID, SeriesInstanceUID=first.SeriesInstanceUID
    )


def same_series_of_another_study(first: Dataset) -> Dataset:
    return radiograph(SeriesInstanceUID=first.SeriesInstanceUID)


def same_object_in_another_study(first: Dataset) -> Dataset:
    return radiograph(SOPInstanceUID=first.SOPInstanceUID)


@pytest.mark.parametrize(
    ("second_of", "status", "instances", "set_aside"),
    [
        (same_study, STORED, 2, 0),
        (same_series, STORED, 2, 0),
        (lambda first: first, STORED, 1, 0),
        (same_series_of_another_study, CONFLICT, 1, 1),
        (same_object_in_another_study, CONFLICT, 1, 1),
    ],
)
def test_what_another_listener_has_registered_is_found(
    second_of: Callable[[Dataset], Dataset],
    status: int,
    instances: int,
    set_aside: int,
    listen: Listen,
    sessions: sessionmaker[Session],
) -> None:
    one, other = listen(), listen()
    assert send(other, radiograph()) == [STORED]  # so that it knows the database's clock
    before = counts(sessions)
    first = radiograph()
    assert send(one, first) == [STORED]
    assert send(other, second_of(first)) == [status]
    after = counts(sessions)
    assert after["study"] - before["study"] == 1
    assert after["instance"] - before["instance"] == instances
    assert after["analysis"] - before["analysis"] == instances
    assert after["worklist_item"] - before["worklist_item"] == 1
    assert after["set_aside"] == set_aside
    assert after["patient"] == before["patient"]


def test_two_listeners_that_begin_one_study_at_once_both_store(
    listen: Listen, sessions: sessionmaker[Session]
) -> None:
    both = [listen(), listen()]
    for settings in both:
        assert send(settings, radiograph()) == [STORED]
    rounds = 30
    firsts = [radiograph() for _ in range(rounds)]
    pairs = [(first, same_study(first)) for first in firsts]
    at_once, statuses = Barrier(2), []

    def sending(number: int) -> None:
        for pair in pairs:
            at_once.wait(60)
            statuses.extend(send(both[number], pair[number]))

    threads = [Thread(target=sending, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [STORED] * (2 * rounds)
    found = counts(sessions)
    assert (found["study"], found["instance"]) == (2 + rounds, 2 + 2 * rounds)
    assert found["analysis"] == found["instance"]
    assert found["set_aside"] == 0
