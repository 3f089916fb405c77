"""Let threads reach a group commit in a known order."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import TypeVar

from dicom_listener.group_commit import GroupCommit
from tests.waiting import eventually

Item = TypeVar("Item")
Result = TypeVar("Result")
Done = TypeVar("Done")


def submit_in_turn(
    threads: Executor, group: GroupCommit[Item, Result], works: Sequence[Callable[[], Done]]
) -> list[Future[Done]]:
    """Submit works that a group does while its step is held up.

    The first leads; each of the others waits before the next comes.
    """
    submitted = []
    for number, work in enumerate(works):
        submitted.append(threads.submit(work))
        assert eventually(
            lambda number=number: group._is_led and len(group._waiting) == number, 10, 0.002
        ), "they do not wait"
    return submitted
