"""The order of the worklist as pure functions: outcome, band, due time and the sentence why.

What follows from them: the model only ever brings a study forward, never behind its order's time
and never before a STAT order; an overdue study cannot starve.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from common.settings import Settings
from common.states import AnalysisState, OrderPriority, Outcome, PrioritySource

# Requested Procedure Priority (0040,1003), PS3.3 table C.4-11, and Study Priority ID (0032,000C)
ORDER_WORDS = {
    "STAT": OrderPriority.STAT,
    "HIGH": OrderPriority.URGENT,
    "ROUTINE": OrderPriority.ROUTINE,
    "MEDIUM": OrderPriority.ROUTINE,
    "LOW": OrderPriority.ROUTINE,
}
SOURCE_WORDS = {
    PrioritySource.PERSON: "set by a person",
    PrioritySource.REQUESTED_PROCEDURE: "from the order",
    PrioritySource.STUDY_PRIORITY: "from the study's priority",
    PrioritySource.AE_TITLE: "by the sending station",
    PrioritySource.DEFAULT: "no priority was sent",
}


@dataclass(frozen=True)
class AnalysisView:
    """What the roll-up needs of one analysis."""

    id: int
    unit: tuple[int | None, int | None, str]  # instance, series, pipeline
    run: int
    state: AnalysisState
    outcome: Outcome | None
    probability: float | None
    threshold: float | None  # the operating point that the probability was judged by


@dataclass(frozen=True)
class StudyOutcome:
    """What the analyses of a study come to."""

    outcome: Outcome
    leading: AnalysisView | None  # the done analysis with the highest probability
    images: int  # done analyses
    in_work: bool


@dataclass(frozen=True)
class Rank:
    """Where a study stands: bands first, then due times."""

    band: int
    due_at: datetime
    reason: str


def order_priority(
    *,
    by_person: OrderPriority | None,
    requested_procedure_priority: str,
    study_priority_id: str,
    source_ae_title: str,
    settings: Settings,
) -> tuple[OrderPriority, PrioritySource]:
    """Find how urgent the order is: the first source that says so.

    The DIMSE message priority is never used: modalities set it to whatever they like.
    """
    if by_person is not None:
        return by_person, PrioritySource.PERSON
    for value, source in (
        (requested_procedure_priority, PrioritySource.REQUESTED_PROCEDURE),
        (study_priority_id, PrioritySource.STUDY_PRIORITY),
    ):
        word = ORDER_WORDS.get(value.strip().upper())
        if word is not None:
            return word, source
    rule = settings.order_priority_of(source_ae_title)
    if rule is not None:
        return OrderPriority(rule), PrioritySource.AE_TITLE
    return OrderPriority.ROUTINE, PrioritySource.DEFAULT


def study_outcome(analyses: Sequence[AnalysisView]) -> StudyOutcome:
    """Roll analyses up: the first rule that applies, and silence is never taken for a result.

    A later run of the same unit replaces the earlier one once it has an answer; until then both
    count, so that asking again never hides a flag.
    """
    newest: dict[tuple[int | None, int | None, str], list[AnalysisView]] = {}
    for view in sorted(analyses, key=lambda item: (item.run, item.id)):
        answered = view.state in (AnalysisState.DONE, AnalysisState.NOT_ELIGIBLE)
        earlier = newest.get(view.unit, [])
        newest[view.unit] = (
            [view]
            if answered
            else [*(item for item in earlier if item.state is AnalysisState.DONE), view]
        )
    live = [view for views in newest.values() for view in views]
    done = [view for view in live if view.state is AnalysisState.DONE]
    states = {view.state for view in live}
    outcomes = {view.outcome for view in done}
    in_work = bool(states & {AnalysisState.QUEUED, AnalysisState.RUNNING})
    if Outcome.FLAGGED in outcomes:
        outcome = Outcome.FLAGGED
    elif in_work:
        outcome = Outcome.PENDING
    elif AnalysisState.FAILED in states:
        outcome = Outcome.INCOMPLETE
    elif Outcome.ABSTAINED in outcomes:
        outcome = Outcome.ABSTAINED
    elif done:
        outcome = Outcome.NOT_FLAGGED
    else:
        outcome = Outcome.NOT_ELIGIBLE
    # A flagged image leads even where another model's probability is higher.
    leading = max(
        done,
        key=lambda view: (view.outcome is outcome, view.probability or 0.0, -view.id),
        default=None,
    )
    return StudyOutcome(outcome, leading, len(done), in_work)


def ai_allowance(probability: float, threshold: float, settings: Settings) -> timedelta:
    """Give a flagged study its time: hi at the operating point, lo at certainty.

    Between them it falls geometrically: hi^(1-u) * lo^u with u = (p - t) / (1 - t).
    Source: docs/architecture.md, the order of the worklist.
    """
    u = 1.0 if threshold >= 1 else (probability - threshold) / (1 - threshold)
    u = min(1.0, max(0.0, u))
    minutes = settings.ai_allowance_hi_min ** (1 - u) * settings.ai_allowance_lo_min**u
    return timedelta(minutes=minutes)


def order_allowance(priority: OrderPriority, settings: Settings) -> timedelta:
    """Give the time within which an order of this priority should be read."""
    minutes = {
        OrderPriority.STAT: settings.stat_allowance_min,
        OrderPriority.URGENT: settings.urgent_allowance_min,
        OrderPriority.ROUTINE: settings.routine_allowance_min,
    }
    return timedelta(minutes=minutes[priority])


def rank(
    *,
    first_received_at: datetime,
    now: datetime,
    priority: OrderPriority,
    source: PrioritySource,
    result: StudyOutcome,
    ai_ranking: bool,
    settings: Settings,
) -> Rank:
    """Place a study: band and due time, and the one sentence that the page shows."""
    allowance = order_allowance(priority, settings)
    reason = (
        f"{_ORDER_NAMES[priority]} ({SOURCE_WORDS[source]}), due {_span(allowance)} after arrival"
    )
    leading = result.leading
    flagged = result.outcome is Outcome.FLAGGED and ai_ranking
    if flagged and leading and leading.probability is not None and leading.threshold is not None:
        forward = ai_allowance(leading.probability, leading.threshold, settings)
        if forward < allowance:
            allowance = forward
            reason = f"Flagged by AI, brought forward to {_span(forward)} after arrival"
        else:
            reason += "; flagged by AI, which asks for no earlier time"
    past_cap = now - first_received_at >= timedelta(hours=settings.hard_cap_h)
    if priority is OrderPriority.STAT:
        band = 0
    elif priority is OrderPriority.URGENT or flagged or past_cap:
        band = 1
        if past_cap:
            reason = f"Waiting longer than {_span(timedelta(hours=settings.hard_cap_h))}: " + (
                reason[0].lower() + reason[1:] if not reason.startswith("STAT") else reason
            )
    else:
        band = 2
    return Rank(band, first_received_at + allowance, reason)


_ORDER_NAMES = {
    OrderPriority.STAT: "STAT order",
    OrderPriority.URGENT: "Urgent order",
    OrderPriority.ROUTINE: "Routine order",
}


@lru_cache(maxsize=256)  # mostly the site's few allowances
def _span(span: timedelta) -> str:
    """Spell a duration for people: 35 min, 2 h, 7 h 20 min."""
    minutes = max(1, round(span.total_seconds() / 60))
    hours, rest = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {rest} min" if rest else f"{hours} h"
