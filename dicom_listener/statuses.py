"""Every status that the listener answers, what it means, and whether sending again can help."""

from enum import IntEnum
from typing import NamedTuple

from pydicom.dataset import Dataset


class StoreStatus(IntEnum):
    """C-STORE statuses. Source: PS3.4 table B.2-1, PS3.7 annex C."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    INVALID_UID = 0x0117
    OUT_OF_RESOURCES = 0xA700
    CLASS_MISMATCH = 0xA900
    CANNOT_UNDERSTAND = 0xC000
    CONFLICT = 0xC001


class Meaning(NamedTuple):
    """What one status tells the sender."""

    reason: str
    retry: str


MEANINGS: dict[StoreStatus, Meaning] = {
    StoreStatus.SUCCESS: Meaning(
        "The object is synced to disk under its final name and its row is committed; or the same "
        "object was stored before; or it is a revision whose pixels are equal, kept aside",
        "not needed",
    ),
    StoreStatus.PROCESSING_FAILURE: Meaning(
        "A defect of the listener; the log holds the traceback", "no: report it"
    ),
    StoreStatus.INVALID_UID: Meaning(
        "A UID of the instance, series or study has characters or a length that no UID has",
        "no: correct the object",
    ),
    StoreStatus.OUT_OF_RESOURCES: Meaning(
        "The disk is full or near its reserve, the archive cannot be written, the database is "
        "away, or work waits too long and the peer is not marked urgent; nothing was stored",
        "yes: later, the same object",
    ),
    StoreStatus.CLASS_MISMATCH: Meaning(
        "The SOP class or instance UID within the data set is not the one that the command or "
        "the presentation context announced",
        "no: correct the object",
    ),
    StoreStatus.CANNOT_UNDERSTAND: Meaning(
        "There is no data set, it cannot be parsed, or it names no study or series",
        "no: correct the object",
    ),
    StoreStatus.CONFLICT: Meaning(
        "The SOP Instance UID came before with other pixels or in another study or series, the "
        "series came before in another study, or the study with another patient; both are kept, "
        "the later one aside and shown in operations",
        "no: a person must decide",
    ),
}

ECHO_SUCCESS = 0x0000


class Answer(NamedTuple):
    """What the sender of one object is told.

    ``comment`` is Error Comment (0000,0902): it must hold nothing of the patient.
    """

    status: StoreStatus
    comment: str = ""

    @property
    def error_comment(self) -> str:
        """Give the comment as its LO may be sent: ASCII, at most 64 characters; "" on success."""
        if self.status is StoreStatus.SUCCESS:
            return ""
        return self.comment.encode("ascii", "replace").decode()[:64]

    def for_pynetdicom(self) -> int | Dataset:
        """Give what a handler of pynetdicom returns."""
        if not self.error_comment:
            return int(self.status)
        response = Dataset()
        response.Status = int(self.status)
        response.ErrorComment = self.error_comment
        return response
