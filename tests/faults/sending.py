"""DCMTK's ``storescu``, many at a time, started again until every object is acknowledged.

At least once: an object whose answer was lost with its connection is sent again. What counts as
acknowledged is what storescu itself wrote: a "Received Store Response (Success)" that follows a
"Sending file: PATH", and nothing else.
"""

import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from pathlib import Path
from threading import Event, Lock, Thread

from tests.faults.objects import Objects, Sent
from tests.waiting import Deadline

_FILE = re.compile(r"I: Sending file: (.*)")
_ANSWER = re.compile(r"Received Store Response \((.*)\)")
numbers = count(1)


class Sending:
    """So many associations at a time, until told that it is enough; then all of it to the end."""

    def __init__(
        self,
        objects: Objects,
        ports: Sequence[int],
        *,
        associations: int = 8,
        per_association: int = 25,
        at_least: int = 0,
        host: str = "127.0.0.1",
        prefix: Sequence[str] = (),
        patience_s: float = 300,
        pause_s: float = 0.2,
        rest_s: float = 0.0,
        make: Callable[[], Sent] | None = None,
    ) -> None:
        """Describe it.

        Args:
            objects: Makes what is sent, and keeps it.
            ports: The listeners'; the associations are spread over them.
            associations: How many storescu run at a time.
            per_association: Objects of one storescu.
            at_least: So many objects are sent, however early ``enough`` is called.
            host: The listeners' address.
            prefix: Put before storescu, as ``ip netns exec NAME``.
            patience_s: A sender without any answer for so long gives up what it holds.
            pause_s: Between a failed storescu and the next.
            rest_s: Between one whose objects are all acknowledged and the next.
            make: Makes the next object; ``objects.make`` if not given.
        """
        self.objects = objects
        self.acknowledged: set[str] = set()  # SOP Instance UIDs
        self.answers: Counter[str] = Counter()  # DCMTK's words for the statuses that came
        self.broken = 0  # storescu that ended otherwise than with all of theirs acknowledged
        self.given_up: list[Sent] = []
        self._ports = ports
        self._per_association = per_association
        self._at_least = at_least
        self._host = host
        self._prefix = prefix
        self._patience_s = patience_s
        self._pause_s = pause_s
        self._rest_s = rest_s
        self._make = make or objects.make
        self._enough = Event()
        self._lock = Lock()
        self._taken = 0
        self._running = 0
        self._logs = objects.folder / f"storescu-{next(numbers)}"
        self._logs.mkdir()
        self._threads = [
            Thread(target=self._send, args=(number,), name=f"sender-{number}", daemon=True)
            for number in range(associations)
        ]

    def start(self) -> "Sending":
        """Begin to send."""
        for thread in self._threads:
            thread.start()
        return self

    def enough(self) -> None:
        """Begin with no new object, once there are ``at_least``."""
        self._enough.set()

    def finish(self, within_s: float = 600) -> None:
        """Wait until every object begun is acknowledged or given up."""
        self.enough()
        deadline = Deadline(within_s)
        for thread in self._threads:
            while thread.is_alive():
                assert not deadline.is_over(), f"still sending after {within_s} s: {self}"
                thread.join(0.5)

    @property
    def alive(self) -> int:
        """Count the storescu that run now."""
        with self._lock:
            return self._running

    def __str__(self) -> str:
        """Say how far it is."""
        return (
            f"{len(self.acknowledged)} of {self._taken} acknowledged, {self.broken} associations "
            f"broken, answers {dict(self.answers)}, given up {len(self.given_up)}"
        )

    def _take(self) -> list[Sent]:
        with self._lock:
            left = self._at_least - self._taken
            wanted = self._per_association
            if self._enough.is_set():
                wanted = max(0, min(wanted, left))
            self._taken += wanted
        return [self._make() for _ in range(wanted)]

    def _send(self, number: int) -> None:
        port = self._ports[number % len(self._ports)]
        while pending := self._take():
            answered_at = time.monotonic()
            while pending:
                log = self._logs / f"{number}-{next(numbers)}.log"
                self._run(pending, port, f"SENDER{number}", log)
                acknowledged = self._read(log, pending)
                left = [one for one in pending if one.sop_instance_uid not in acknowledged]
                if len(left) < len(pending):
                    answered_at = time.monotonic()
                pending = left
                if not pending:
                    self._enough.wait(self._rest_s)
                    break
                with self._lock:
                    self.broken += 1
                if time.monotonic() - answered_at > self._patience_s:
                    self.given_up += pending
                    return
                time.sleep(self._pause_s)

    def _run(self, objects: Iterable[Sent], port: int, ae_title: str, log: Path) -> None:
        command = [
            *(*self._prefix, "storescu", "-v", "-R", "-aet", ae_title, "-aec", "FIRSTREAD"),
            *("-to", "5", "-ta", "15", "-td", "60", self._host, str(port)),
            *(str(one.path) for one in objects),
        ]
        with self._lock:
            self._running += 1
        with log.open("wb") as output:
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TCP_NODELAY": "1"},
                check=False,
            )
        with self._lock:
            self._running -= 1

    def _read(self, log: Path, pending: Iterable[Sent]) -> set[str]:
        """Give the SOP Instance UIDs whose Success stands in a log."""
        uids = {str(one.path): one.sop_instance_uid for one in pending}
        sending, acknowledged, answers = "", set(), Counter[str]()
        for line in log.read_text(errors="replace").splitlines():
            if found := _FILE.search(line):
                sending = found[1].strip()
            elif found := _ANSWER.search(line):
                answers[found[1]] += 1
                if found[1] == "Success":
                    assert sending, f"an answer to nothing in {log}"
                    acknowledged.add(uids[sending])
                sending = ""
        with self._lock:
            self.answers += answers
            self.acknowledged |= acknowledged
        return acknowledged
