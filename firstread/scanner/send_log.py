"""The sender's log: one JSON line for each object, written before the next is sent."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import BaseModel

SUCCESS = 0x0000


class Acknowledgement(BaseModel, frozen=True):
    """What the receiver answered to one object; status None: it never answered.

    Attributes:
        status: the C-STORE status of the last attempt.
        attempts: how often it was sent until it was answered for good.
        duration_s: from the first request to the last answer, waits included.
        reason: why there is no status.
    """

    at: datetime
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    status: int | None
    attempts: int
    duration_s: float
    calling_ae_title: str
    destination: str
    path: Path
    reason: str = ""

    @classmethod
    def unsent(cls, path: Path, reason: str, destination: str) -> Self:
        """Record a file that could not even be announced."""
        return cls(
            at=datetime.now(UTC),
            sop_instance_uid="",
            sop_class_uid="",
            transfer_syntax_uid="",
            status=None,
            attempts=0,
            duration_s=0,
            calling_ae_title="",
            destination=destination,
            path=path,
            reason=reason,
        )

    @property
    def stored(self) -> bool:
        """Whether the receiver took it: success, or a warning, which PS3.4 calls stored too."""
        return self.status is not None and (
            self.status == SUCCESS or self.status & 0xF000 == 0xB000
        )


class SendLog:
    """An append-only file of acknowledgements; what was acknowledged survives the sender."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, acknowledgement: Acknowledgement) -> None:
        """Append one line and hand it to the operating system."""
        self._file.write(acknowledgement.model_dump_json() + "\n")
        self._file.flush()


def read_send_log(path: Path) -> Iterator[Acknowledgement]:
    """Read a log again, in the order of sending; a last line that was cut off is left out."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield Acknowledgement.model_validate_json(line)
