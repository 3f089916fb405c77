"""How long tests wait: at rest what they say, longer where the machine is busy, never for ever."""

import time

import pytest

from tests.waiting import MOST, Deadline, eventually, stretch


def test_a_busy_machine_gets_more_time_and_never_more_than_so_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert 1.0 <= stretch() <= MOST
    took_s = []
    for told in ("1", "4"):
        monkeypatch.setenv("FAULT_STRETCH", told)
        began = time.monotonic()
        assert not eventually(lambda: False, 0.2, 0.01)
        took_s.append(time.monotonic() - began)
    assert 0.2 <= took_s[0] < took_s[1]
    assert took_s[1] >= 0.8


def test_time_that_passed_while_the_machine_was_busy_counts_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAULT_STRETCH", "6")
    deadline = Deadline(0.2)
    time.sleep(0.6)
    assert not deadline.is_over()
    monkeypatch.setenv("FAULT_STRETCH", "1")
    time.sleep(0.6)  # counted as it began, then at rest
    deadline.is_over()
    time.sleep(0.3)
    assert deadline.is_over()
