"""What should become of everything that was sent: the simulator's own word, as JSON."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import BaseModel, Field
from scipy.stats import binom

from common.states import AnalysisState, OrderPriority, Outcome, PrioritySource
from firstread.scanner.cases import Case
from firstread.scanner.send_log import Acknowledgement

Box = tuple[int, int, int, int]

ALLOWED_MISS_RATE = 0.1
ALLOWED_FALSE_FLAG_RATE = 0.1
ALLOWED_RATES_REASON = (
    "The shipped phantom model misses one lesion in ten and falsely flags fewer (its card). In one "
    "run the count may exceed the rate by chance: what a model of exactly this rate stays within "
    "in 99 of 100 runs is allowed, but never every phantom of a class."
)
CONFIDENCE = 0.99


def allowed_errors(rate: float, cases: int) -> int:
    """Count the errors that a model of this error rate may make by chance among ``cases``."""
    return min(int(binom.ppf(CONFIDENCE, cases, rate)), cases - 1) if cases else 0


class ExpectedObject(BaseModel, frozen=True):
    """One object as it was sent, in the order of sending.

    Attributes:
        status: the C-STORE status that should answer it.
        registered: whether it becomes a new instance; a repeated one does not.
        state: where its analysis should end; None where it should have none of its own.
        outcome: what the model should say of it; None where it should say nothing.
        lesion_boxes: (x, y, width, height) in pixels of the image.
        reason: a part of the reason that should be recorded, "" where any will do.
    """

    path: Path
    case: Case
    calling_ae_title: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    rows: int | None = None
    columns: int | None = None
    status: int
    registered: bool
    state: AnalysisState | None
    outcome: Outcome | None
    lesion_boxes: list[Box] = Field(default_factory=list)
    reason: str = ""


class ExpectedStudy(BaseModel, frozen=True):
    """One study and its place on the worklist.

    Attributes:
        registered: whether any of its objects should be taken at all.
        outcome: of the study; None if it is not registered.
        prior: whether it is a prior, which stands off the list.
        band_if_flagged, band_if_not_flagged: the band by what the model really said.
    """

    study_instance_uid: str
    accession_number: str
    patient_id: str
    order_priority: OrderPriority
    priority_source: PrioritySource
    prior: bool
    registered: bool
    outcome: Outcome | None
    band_if_flagged: int
    band_if_not_flagged: int
    objects: list[ExpectedObject]


class Expectations(BaseModel):
    """Everything that one run of the simulator sent."""

    run_id: str
    seed: int
    allowed_miss_rate: float = ALLOWED_MISS_RATE
    allowed_false_flag_rate: float = ALLOWED_FALSE_FLAG_RATE
    allowed_rates_reason: str = ALLOWED_RATES_REASON
    studies: list[ExpectedStudy] = Field(default_factory=list)

    @property
    def objects(self) -> list[ExpectedObject]:
        """All objects in the order of sending."""
        return [one for study in self.studies for one in study.objects]

    def count_states(self) -> Counter[AnalysisState]:
        """Count how many analyses should end in each state."""
        return Counter(one.state for one in self.objects if one.registered and one.state)

    def write(self, path: Path) -> None:
        """Write the file in one step, so that a reader never sees half of it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".tmp")
        draft.write_text(self.model_dump_json(indent=1), encoding="utf-8")
        draft.replace(path)


def read_expectations(path: Path) -> Expectations:
    """Read what ``Expectations.write`` wrote."""
    return Expectations.model_validate_json(path.read_text(encoding="utf-8"))


class FlagTally(BaseModel, frozen=True):
    """How the flags compare with the truth.

    Attributes:
        missed: SOP Instance UIDs with lesions that were not flagged.
        false_flags: SOP Instance UIDs without lesions that were flagged.
        misses_allowed, false_flags_allowed: by the stated rates and chance.
    """

    with_lesion: int
    without_lesion: int
    missed: list[str]
    false_flags: list[str]
    misses_allowed: int
    false_flags_allowed: int

    @property
    def within_rates(self) -> bool:
        """Whether the model kept to the stated rates."""
        return (
            len(self.missed) <= self.misses_allowed
            and len(self.false_flags) <= self.false_flags_allowed
        )


def tally_flags(expectations: Expectations, outcomes: Mapping[str, str]) -> FlagTally:
    """Compare outcomes by SOP Instance UID with the truth; one that is absent counts as wrong."""
    judged = [one for one in expectations.objects if one.registered and one.outcome]
    lesion = [one.sop_instance_uid for one in judged if one.outcome is Outcome.FLAGGED]
    clear = [one.sop_instance_uid for one in judged if one.outcome is Outcome.NOT_FLAGGED]
    return FlagTally(
        with_lesion=len(lesion),
        without_lesion=len(clear),
        missed=[uid for uid in lesion if outcomes.get(uid) != Outcome.FLAGGED],
        false_flags=[uid for uid in clear if outcomes.get(uid) != Outcome.NOT_FLAGGED],
        misses_allowed=allowed_errors(expectations.allowed_miss_rate, len(lesion)),
        false_flags_allowed=allowed_errors(expectations.allowed_false_flag_rate, len(clear)),
    )


def peak_lands(boxes: Iterable[Box], x: float, y: float, margin_px: float = 0) -> bool:
    """Say whether a point lies in a lesion's box or within a margin of it.

    Args:
        boxes: of one image.
        x, y: in pixels of that image.
        margin_px: half a cell of the heatmap, whose peak cannot be placed more finely.
    """
    return any(
        left - margin_px <= x <= left + width + margin_px
        and top - margin_px <= y <= top + height + margin_px
        for left, top, width, height in boxes
    )


def compare_answers(expectations: Expectations, answers: Iterable[Acknowledgement]) -> list[str]:
    """List, one sentence each, where the receiver's answers are not the expected ones."""
    by_path = {answer.path: answer for answer in answers}
    complaints = []
    for one in expectations.objects:
        answer = by_path.get(one.path)
        told = "no answer" if answer is None or answer.status is None else f"{answer.status:#06x}"
        if told != f"{one.status:#06x}":
            complaints.append(
                f"{one.case} {one.sop_instance_uid}: expected {one.status:#06x}, got {told}"
            )
    return complaints
