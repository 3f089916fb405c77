"""Run the simulated scanner: write a study, note what is expected of it, send it, wait."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from firstread.scanner.expectations import Expectations, ExpectedStudy
from firstread.scanner.plans import StudyPlan
from firstread.scanner.scanner import Scanner
from firstread.scanner.send_log import Acknowledgement, SendLog
from firstread.scanner.sending import Destination, RetryPolicy, send

EXPECTATIONS_FILE = "expectations.json"
SEND_LOG_FILE = "sent.jsonl"


@dataclass(frozen=True)
class Run:
    """One run of the simulator, kept in one folder.

    Attributes:
        folder: gets the objects, the expectations and the sender's log.
        run_id: tells this run's UIDs from others'.
        seed: gives patients and pictures.
        started_at: an aware instant that the studies' dates are counted from.
        keep_files: whether objects stay on disk after they were answered.
    """

    folder: Path
    run_id: str
    seed: int
    started_at: datetime
    keep_files: bool = True

    @property
    def expectations_path(self) -> Path:
        """Where the simulator says what should become of each object."""
        return self.folder / EXPECTATIONS_FILE

    @property
    def send_log_path(self) -> Path:
        """Where the sender keeps each answer."""
        return self.folder / SEND_LOG_FILE


def simulate(
    run: Run,
    plans: Iterable[StudyPlan],
    destination: Destination,
    *,
    studies_per_min: float | None = None,
    retry: RetryPolicy | None = None,
    on_study: Callable[[ExpectedStudy], None] | None = None,
    on_answer: Callable[[Acknowledgement], None] | None = None,
    stop: threading.Event | None = None,
) -> Expectations:
    """Send planned studies one after another, and no faster than asked.

    The expectations of a study are on disk before its first object is sent.

    Args:
        run: where and under which name.
        plans: from ``plan_demo`` or ``plan_stream``.
        destination: the receiver.
        studies_per_min: the rate; None sends as fast as studies are made and answered.
        retry: as for ``send``.
        on_study: called before a study is sent.
        on_answer: called after each object.
        stop: set it to end before the next study or object.

    Returns:
        What should have become of all that was sent.

    Raises:
        UnreachableError: the receiver cannot be had; what was sent before is in both files.
    """
    if studies_per_min is not None and studies_per_min <= 0:
        raise ValueError("the rate must be above 0 studies per minute")
    stop = stop or threading.Event()
    scanner = Scanner(run.seed, run.run_id, run.started_at, run.folder / "objects")
    expectations = Expectations(run_id=run.run_id, seed=run.seed)
    expectations.write(run.expectations_path)
    begin = time.monotonic()
    with SendLog(run.send_log_path) as log:
        for position, plan in enumerate(plans):
            written = scanner.write_study(plan)
            due = begin + position * 60 / studies_per_min if studies_per_min else 0.0
            if stop.wait(max(0.0, due - time.monotonic())):
                break
            expectations.studies.append(written.expected)
            expectations.write(run.expectations_path)
            if on_study is not None:
                on_study(written.expected)
            send(
                written.outgoing,
                destination,
                log=log,
                retry=retry,
                on_answer=on_answer,
                stop=stop,
            )
            if not run.keep_files:
                for one in written.outgoing:
                    one.path.unlink()
    return expectations
