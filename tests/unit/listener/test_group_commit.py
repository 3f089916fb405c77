"""What waits together is done together: once, in order, with nobody kept for ever."""

import random
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event, Lock

import pytest

from dicom_listener.group_commit import GroupCommit
from tests.group_turns import submit_in_turn


def test_who_comes_alone_is_done_at_once() -> None:
    done: list[list[int]] = []

    def step(items: Sequence[int]) -> Sequence[int]:
        done.append(list(items))
        return [item * 10 for item in items]

    group = GroupCommit(step, most=4)
    assert [group.do(1), group.do(2)] == [10, 20]
    assert done == [[1], [2]]


def test_who_comes_meanwhile_is_done_together_and_each_gets_its_own_result() -> None:
    gate, done = Event(), []

    def step(items: Sequence[int]) -> Sequence[int]:
        assert gate.wait(10)
        done.append(list(items))
        return [item * 10 for item in items]

    group = GroupCommit(step, most=4)
    with ThreadPoolExecutor(8) as threads:
        works = [partial(group.do, item) for item in range(8)]
        submitted = submit_in_turn(threads, group, works)
        gate.set()
        assert [one.result(10) for one in submitted] == [item * 10 for item in range(8)]
    assert done == [[0], [1, 2, 3, 4], [5, 6, 7]]


def test_what_fails_fails_for_its_group_alone() -> None:
    gate = Event()

    def step(items: Sequence[int]) -> Sequence[int]:
        assert gate.wait(10)
        if 2 in items:
            raise ValueError("two")
        return list(items)

    group = GroupCommit(step, most=2)
    with ThreadPoolExecutor(5) as threads:
        works = [partial(group.do, item) for item in range(5)]
        first, *others = submit_in_turn(threads, group, works)
        gate.set()
        assert first.result(10) == 0
        for failed in others[:2]:
            with pytest.raises(ValueError, match="two"):
                failed.result(10)
        assert [one.result(10) for one in others[2:]] == [3, 4]
    assert group.do(5) == 5


def test_in_a_crowd_each_is_done_once_and_one_group_at_a_time() -> None:
    seen: Counter[int] = Counter()
    lock, under_way, most_under_way = Lock(), 0, 0

    def step(items: Sequence[int]) -> Sequence[int]:
        nonlocal under_way, most_under_way
        with lock:
            under_way += 1
            most_under_way = max(most_under_way, under_way)
            seen.update(items)
        time.sleep(random.random() / 2000)
        with lock:
            under_way -= 1
        return [-item for item in items]

    group = GroupCommit(step, most=5)
    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(group.do, range(3000))) == [-item for item in range(3000)]
    assert seen == Counter(range(3000))
    assert most_under_way == 1
