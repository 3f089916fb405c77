"""Hold what the ledger says against what the simulator expects, check by check."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from common.states import AnalysisState, Outcome
from firstread.demo_ledger import Seen
from firstread.scanner.expectations import (
    Expectations,
    ExpectedObject,
    ExpectedStudy,
    allowed_errors,
    compare_answers,
    peak_lands,
    tally_flags,
)
from firstread.scanner.send_log import Acknowledgement

# Of the flagged phantoms with lesions, so many heatmaps may peak beside every lesion. The shipped
# phantom model's card says one in thirty.
ALLOWED_PEAK_MISS_RATE = 0.04


@dataclass(frozen=True)
class Check:
    """One thing that had to be so: what was found, and the sentences that say where it was not.

    notes: What a person should know although nothing is wrong with it.
    """

    subject: str
    found: str
    complaints: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether it was so."""
        return not self.complaints


def judge(
    expectations: Expectations, answers: Sequence[Acknowledgement], seen: Seen
) -> list[Check]:
    """Compare everything that a run sent with what became of it."""
    registered = [one for one in expectations.objects if one.registered]
    return [
        _answers(expectations, answers),
        _kept(answers, seen),
        _states(registered, seen),
        _studies(expectations.studies, seen),
        _flags(expectations, seen),
        _peaks(registered, seen),
    ]


def judge_own(answers: Sequence[Acknowledgement], seen: Seen) -> list[Check]:
    """Check what can be said of files whose truth nobody stated."""
    names = {answer.sop_instance_uid: answer.path.name for answer in answers}
    unfinished = [one.sop_instance_uid for one in seen.objects if one.in_work]
    states = {state: 0 for state in AnalysisState}
    for one in seen.objects:
        states[one.state] += 1
    counts = ", ".join(
        f"{count} {state.value.replace('_', ' ')}" for state, count in states.items() if count
    )
    ended = Check(
        "every analysis ended",
        counts or "nothing was taken",
        tuple(f"{uid} still waits" for uid in unfinished),
        tuple(
            f"{names.get(one.sop_instance_uid)}: {one.state.replace('_', ' ')}: "
            f"{one.error or '; '.join(one.reasons)}"
            for one in seen.objects
            if one.state in (AnalysisState.FAILED, AnalysisState.NOT_ELIGIBLE)
        ),
    )
    refused = tuple(
        f"{answer.path.name}: not taken: "
        + (answer.reason if answer.status is None else f"status {answer.status:#06x}")
        for answer in answers
        if not answer.stored
    )
    return [replace(_kept(answers, seen), notes=refused), ended]


def _answers(expectations: Expectations, answers: Sequence[Acknowledgement]) -> Check:
    complaints = compare_answers(expectations, answers)
    count = len(expectations.objects)
    found = f"{count - len(complaints)} of {count} objects"
    return Check("each object answered by its status", found, tuple(complaints))


def _kept(answers: Sequence[Acknowledgement], seen: Seen) -> Check:
    """Compare with the sender's log: what it heard Success for is there, and nothing else."""
    acknowledged = {answer.sop_instance_uid for answer in answers if answer.stored}
    kept = {one.sop_instance_uid for one in seen.objects}
    complaints = [f"{uid} was acknowledged and is not there" for uid in acknowledged - kept]
    complaints += [f"{uid} is there and was not acknowledged" for uid in kept - acknowledged]
    found = f"{len(acknowledged)} acknowledged, {len(kept)} kept"
    return Check("what was acknowledged is kept", found, tuple(sorted(complaints)))


def _states(registered: Sequence[ExpectedObject], seen: Seen) -> Check:
    found = {one.sop_instance_uid: one for one in seen.objects}
    complaints = []
    for one in registered:
        is_ = found.get(one.sop_instance_uid)
        if is_ is None or is_.state != one.state:
            told = "not there" if is_ is None else f"{is_.state}: {is_.error or is_.reasons}"
            complaints.append(f"{one.case} {one.sop_instance_uid}: expected {one.state}, {told}")
        elif one.reason and not any(one.reason in reason for reason in is_.reasons):
            complaints.append(
                f"{one.case} {one.sop_instance_uid}: expected {one.reason!r}, is {is_.reasons}"
            )
    return Check(
        "each analysis ends in its state",
        f"{len(registered) - len(complaints)} of {len(registered)}",
        tuple(complaints),
    )


def _studies(expected: Sequence[ExpectedStudy], seen: Seen) -> Check:
    """Compare places on the list; a flag that the model missed moves its study accordingly."""
    flagged = {one.study_instance_uid for one in seen.objects if one.outcome is Outcome.FLAGGED}
    complaints = []
    for study in expected:
        item = seen.studies.get(study.study_instance_uid)
        if not study.registered or study.outcome is None:
            if item is not None:
                complaints.append(f"{study.accession_number} should not be there")
            continue
        if item is None:
            complaints.append(f"{study.accession_number} is not there")
            continue
        is_flagged = study.study_instance_uid in flagged
        outcome = study.outcome
        if outcome in (Outcome.FLAGGED, Outcome.NOT_FLAGGED):
            outcome = Outcome.FLAGGED if is_flagged else Outcome.NOT_FLAGGED
        band = study.band_if_flagged if is_flagged else study.band_if_not_flagged
        wanted = (outcome, band, study.prior, study.order_priority, study.priority_source)
        found = (item.outcome, item.band, item.prior, item.order_priority, item.priority_source)
        if wanted != found:
            complaints.append(f"{study.accession_number}: expected {wanted}, found {found}")
    return Check(
        "each study has its outcome and rank",
        f"{len(expected) - len(complaints)} of {len(expected)}",
        tuple(complaints),
    )


def _flags(expectations: Expectations, seen: Seen) -> Check:
    outcomes = {one.sop_instance_uid: one.outcome.value for one in seen.objects if one.outcome}
    tally = tally_flags(expectations, outcomes)
    found = (
        f"{tally.with_lesion - len(tally.missed)} of {tally.with_lesion} with lesions flagged "
        f"({tally.misses_allowed} may be missed), {len(tally.false_flags)} of "
        f"{tally.without_lesion} without ({tally.false_flags_allowed} allowed)"
    )
    complaints = [f"{uid} has a lesion and is not flagged" for uid in tally.missed]
    complaints += [f"{uid} has no lesion and is flagged" for uid in tally.false_flags]
    return Check(
        "lesions are flagged, the rest is not",
        found,
        () if tally.within_rates else tuple(complaints),
    )


def _peaks(registered: Sequence[ExpectedObject], seen: Seen) -> Check:
    found = {one.sop_instance_uid: one for one in seen.objects}
    looked_at, beside = 0, []
    for one in registered:
        is_ = found.get(one.sop_instance_uid)
        if not one.lesion_boxes or is_ is None or is_.outcome is not Outcome.FLAGGED:
            continue
        looked_at += 1
        peak = is_.peak
        if peak is None or not peak_lands(one.lesion_boxes, peak.x, peak.y, peak.margin_px):
            place = "has no heatmap" if peak is None else f"peaks at {peak.x:.0f}, {peak.y:.0f}"
            beside.append(f"{one.sop_instance_uid} {place}, lesions {one.lesion_boxes}")
    allowed = allowed_errors(ALLOWED_PEAK_MISS_RATE, looked_at)
    summary = f"{looked_at - len(beside)} of {looked_at} ({allowed} may lie beside)"
    complaints = tuple(beside) if len(beside) > allowed else ()
    return Check("heatmaps peak in a lesion", summary, complaints)
