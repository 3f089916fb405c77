"""Who sends in the demo: the simulated scanner, or one's own files; each in a thread."""

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from sqlalchemy.orm import Session

from common.errors import FirstreadError
from common.settings import Settings
from firstread.demo_ledger import Seen, read_run
from firstread.demo_verdict import Check, judge, judge_own
from firstread.scanner.expectations import Expectations, ExpectedStudy
from firstread.scanner.outgoing import find_files
from firstread.scanner.own_files import Claims, send_paths
from firstread.scanner.plans import plan_demo
from firstread.scanner.send_log import Acknowledgement, SendLog, read_send_log
from firstread.scanner.sending import Destination
from firstread.scanner.simulation import Run, simulate


class DemoSender(Protocol):
    """Something that sends once and can say what should have come of it.

    answers: What the listener said, object by object, so far.
    error: Why sending stopped early; None while all is well.
    """

    answers: list[Acknowledgement]
    error: str | None

    @property
    def total(self) -> int:
        """How many objects there will be, as far as that is known."""
        ...

    def read(self, session: Session) -> Seen:
        """Read what the ledger holds of what was sent so far."""
        ...

    def label_studies(self, seen: Seen) -> dict[str, str]:
        """Say what each study is, by UID in the order of sending."""
        ...

    def run(self, stop: threading.Event) -> None:
        """Send everything; the body of a thread."""
        ...

    def judge(self, seen: Seen) -> list[Check]:
        """Compare what became of it with what should have."""
        ...


class SimulatedScanner:
    """Phantoms of nobody, of every kind that the simulator knows."""

    def __init__(
        self, settings: Settings, folder: Path, run_id: str, *, count: int, seed: int
    ) -> None:
        self.plans = plan_demo(seed, frontals=count)
        self.total = sum(len(plan.cases) for plan in self.plans)
        self.destination = own_listener(settings)
        self.simulated = Run(folder, run_id, seed, datetime.now(UTC), keep_files=False)
        self.expectations: Expectations | None = None
        self.answers: list[Acknowledgement] = []
        self.error: str | None = None
        self._announced: dict[str, ExpectedStudy] = {}

    def read(self, session: Session) -> Seen:
        """Read the run's studies."""
        return read_run(session, study_instance_uids=list(self._announced))

    def label_studies(self, seen: Seen) -> dict[str, str]:
        """Name what was made of each phantom."""
        return {uid: _label(study) for uid, study in list(self._announced.items())}

    def run(self, stop: threading.Event) -> None:
        """Make and send one study after another."""
        try:
            self.expectations = simulate(
                self.simulated,
                self.plans,
                self.destination,
                on_study=self._announce,
                on_answer=self.answers.append,
                stop=stop,
            )
        except FirstreadError as error:
            self.error = str(error)

    def judge(self, seen: Seen) -> list[Check]:
        """Compare with the simulator's own file of expectations."""
        if self.expectations is None:
            return []
        return judge(self.expectations, list(read_send_log(self.simulated.send_log_path)), seen)

    def _announce(self, study: ExpectedStudy) -> None:
        self._announced[study.study_instance_uid] = study


class OwnFiles:
    """One's own DICOM, PNG and JPEG files. Pictures carry no tags: they are sent as chests."""

    def __init__(self, settings: Settings, folder: Path, sources: Sequence[Path]) -> None:
        self.files = find_files(sources)
        self.total = len(self.files)
        self.destination = own_listener(settings)
        self.log_path = folder / "sent.jsonl"
        self.answers: list[Acknowledgement] = []
        self.error: str | None = None

    def read(self, session: Session) -> Seen:
        """Read what was taken, wherever it belongs."""
        taken = [answer.sop_instance_uid for answer in list(self.answers) if answer.stored]
        return read_run(session, sop_instance_uids=taken)

    def label_studies(self, seen: Seen) -> dict[str, str]:
        """Name the files of each study."""
        names = {answer.sop_instance_uid: answer.path.name for answer in list(self.answers)}
        labels: dict[str, str] = {}
        for one in seen.objects:
            earlier = labels.get(one.study_instance_uid)
            name = names.get(one.sop_instance_uid, "")
            labels[one.study_instance_uid] = f"{earlier}, {name}" if earlier else name
        return labels

    def run(self, stop: threading.Event) -> None:
        """Send file after file."""
        try:
            with SendLog(self.log_path) as log:
                send_paths(
                    self.files,
                    self.destination,
                    claims=Claims(body_part_examined="CHEST"),
                    log=log,
                    on_answer=self.answers.append,
                    stop=stop,
                )
        except FirstreadError as error:
            self.error = str(error)

    def judge(self, seen: Seen) -> list[Check]:
        """Check that everything taken is kept and came to an end."""
        return judge_own(self.answers, seen)


def own_listener(settings: Settings) -> Destination:
    """Give the address of this machine's own listener."""
    return Destination(settings.ae_title, settings.dicom_host, settings.dicom_port)


def _label(study: ExpectedStudy) -> str:
    cases = " + ".join(one.case.replace("_", " ") for one in study.objects)
    lesion = ", lesion" if any(one.lesion_boxes for one in study.objects) else ""
    return f"{cases}{lesion}" + (", prior" if study.prior else "")
