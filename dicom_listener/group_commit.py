"""Group commit: what several threads want done at once is done by one of them, together."""

from collections import deque
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class GroupCommit(Generic[Item, Result]):
    """Hand what waits to a step, as many items at a time as came while the last ones were done.

    One group is under way at a time. No thread of its own, and no waiting for company: who comes
    alone does its item at once. Each thread leads one group at most, so none is kept from its
    sender by the others' work.
    """

    def __init__(self, step: Callable[[Sequence[Item]], Sequence[Result]], most: int) -> None:
        """Take the step and how many items it is given at most.

        Args:
            step: Does all items or none, and gives a result for each, in their order.
        """
        self._step = step
        self._most = most
        self._lock = Lock()
        self._is_led = False
        self._waiting: deque[_Turn[Item, Result]] = deque()

    def do(self, item: Item) -> Result:
        """Have an item done, with others or alone.

        Raises:
            Exception: what the step raised, for all items of the group.
        """
        mine = _Turn[Item, Result](item)
        with self._lock:
            leads = not self._is_led
            if leads:
                self._is_led = True
            else:
                self._waiting.append(mine)
        if not leads:
            mine.woken.acquire()
        if not mine.is_over:
            self._lead(mine)
        if mine.error is not None:
            raise mine.error
        return mine.results[0]

    def _lead(self, mine: "_Turn[Item, Result]") -> None:
        """Do an item and what waits, and pass the lead on."""
        group = [mine]
        try:
            with self._lock:
                while self._waiting and len(group) < self._most:
                    group.append(self._waiting.popleft())
            self._do_all(group)
        finally:
            with self._lock:
                if self._waiting:
                    self._waiting.popleft().woken.release()
                else:
                    self._is_led = False

    def _do_all(self, group: "list[_Turn[Item, Result]]") -> None:
        error: BaseException | None = None
        results: Sequence[Result] = ()
        try:
            results = self._step([turn.item for turn in group])
        except BaseException as raised:
            error = raised
            raise
        finally:
            for place, turn in enumerate(group):
                turn.error, turn.results = error, results[place : place + 1]
                turn.is_over = True
                turn.woken.release()


class _Turn(Generic[Item, Result]):
    """An item, and its thread's way to learn that it is done or that the lead is its own."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.woken = Lock()
        self.woken.acquire()
        self.is_over = False
        self.error: BaseException | None = None
        self.results: Sequence[Result] = ()
