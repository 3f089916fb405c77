"""What the simulated scanner can send, and what should become of each."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from common.states import AnalysisState
from model.eligibility import Refusal

SUCCESS = 0x0000
CANNOT_UNDERSTAND = 0xC000
CONFLICTING_INSTANCE = 0xC001
INVALID_INSTANCE = 0x0117
CLASS_MISMATCH = 0xA900
NO_PIPELINE = "no pipeline"


class Case(StrEnum):
    """One kind of object."""

    FRONTAL = "frontal"
    LATERAL = "lateral"
    HAND = "hand"
    CHILD = "child"
    FOR_PROCESSING = "for_processing"
    SECONDARY_CAPTURE = "secondary_capture"
    CT_SLICE = "ct_slice"
    REPORT = "report"
    SHORT_PIXELS = "short_pixels"
    GARBLED_PIXELS = "garbled_pixels"
    CUT_STREAM = "cut_stream"
    NO_STUDY_UID = "no_study_uid"
    MALFORMED_UID = "malformed_uid"
    WRONG_CLASS = "wrong_class"
    RESEND = "resend"
    OTHER_SYNTAX = "other_syntax"
    OTHER_PIXELS = "other_pixels"


@dataclass(frozen=True)
class Fate:
    """What a receiver should do with an object.

    Attributes:
        status: the C-STORE status.
        registered: whether it becomes a new instance in the ledger.
        state: where its analysis should end; None where there is none of its own.
        reason: a part of the reason that should be given, "" where any will do.
    """

    status: int = SUCCESS
    registered: bool = True
    state: Literal[AnalysisState.DONE, AnalysisState.FAILED, AnalysisState.NOT_ELIGIBLE] | None = (
        None
    )
    reason: str = ""


def _refused(status: int) -> Fate:
    return Fate(status, registered=False)


def _not_eligible(reason: str) -> Fate:
    return Fate(state=AnalysisState.NOT_ELIGIBLE, reason=reason)


FATES = {
    Case.FRONTAL: Fate(state=AnalysisState.DONE),
    Case.LATERAL: _not_eligible(Refusal.OTHER_VIEW),
    Case.HAND: _not_eligible(Refusal.OTHER_BODY_PART),
    Case.CHILD: _not_eligible(Refusal.UNDER_AGE),
    Case.FOR_PROCESSING: _not_eligible(Refusal.FOR_PROCESSING),
    Case.SECONDARY_CAPTURE: _not_eligible(Refusal.SECONDARY_CAPTURE),
    Case.CT_SLICE: _not_eligible(NO_PIPELINE),
    Case.REPORT: _not_eligible(NO_PIPELINE),
    Case.SHORT_PIXELS: Fate(state=AnalysisState.FAILED),
    Case.GARBLED_PIXELS: Fate(state=AnalysisState.FAILED),
    Case.CUT_STREAM: Fate(state=AnalysisState.FAILED),
    Case.NO_STUDY_UID: _refused(CANNOT_UNDERSTAND),
    Case.MALFORMED_UID: _refused(INVALID_INSTANCE),
    Case.WRONG_CLASS: _refused(CLASS_MISMATCH),
    Case.RESEND: _refused(SUCCESS),
    Case.OTHER_SYNTAX: _refused(SUCCESS),
    Case.OTHER_PIXELS: _refused(CONFLICTING_INSTANCE),
}

INELIGIBLE = (
    Case.LATERAL, Case.HAND, Case.CHILD, Case.FOR_PROCESSING, Case.SECONDARY_CAPTURE,
    Case.CT_SLICE, Case.REPORT,
)  # fmt: skip
UNREADABLE = (Case.SHORT_PIXELS, Case.GARBLED_PIXELS, Case.CUT_STREAM)
REFUSED = (Case.NO_STUDY_UID, Case.MALFORMED_UID, Case.WRONG_CLASS)
REPEATS = (Case.RESEND, Case.OTHER_SYNTAX, Case.OTHER_PIXELS)  # each of the object before it
