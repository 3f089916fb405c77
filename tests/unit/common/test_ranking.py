"""The order of the worklist, rule by rule."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.ranking import AnalysisView, StudyOutcome, ai_allowance, order_priority, rank
from common.ranking import study_outcome as roll_up
from common.settings import Settings
from common.states import AnalysisState, OrderPriority, Outcome, PrioritySource

SETTINGS = Settings.model_validate({"ae_priorities": "ED_CR=urgent"})
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def view(
    number: int,
    state: AnalysisState,
    outcome: Outcome | None = None,
    probability: float | None = None,
    run: int = 0,
    unit: int | None = None,
) -> AnalysisView:
    return AnalysisView(
        id=number,
        unit=(number if unit is None else unit, None, "chest_xray"),
        run=run,
        state=state,
        outcome=outcome,
        probability=probability,
        threshold=0.5,
    )


def done(number: int, outcome: Outcome, probability: float, **more: int) -> AnalysisView:
    return view(number, AnalysisState.DONE, outcome, probability, **more)


QUEUED = view(90, AnalysisState.QUEUED)
FAILED = view(91, AnalysisState.FAILED)
NOT_ELIGIBLE = view(92, AnalysisState.NOT_ELIGIBLE)
FLAGGED = done(1, Outcome.FLAGGED, 0.9)
NOT_FLAGGED = done(2, Outcome.NOT_FLAGGED, 0.1)
ABSTAINED = done(3, Outcome.ABSTAINED, 0.4)


@pytest.mark.parametrize(
    ("analyses", "outcome"),
    [
        ([FLAGGED, QUEUED, FAILED], Outcome.FLAGGED),
        ([NOT_FLAGGED, QUEUED, FAILED], Outcome.PENDING),
        ([NOT_FLAGGED, FAILED, ABSTAINED], Outcome.INCOMPLETE),
        ([NOT_FLAGGED, ABSTAINED], Outcome.ABSTAINED),
        ([NOT_FLAGGED, NOT_ELIGIBLE], Outcome.NOT_FLAGGED),
        ([NOT_ELIGIBLE], Outcome.NOT_ELIGIBLE),
        ([], Outcome.NOT_ELIGIBLE),
    ],
)
def test_silence_is_never_taken_for_a_result(
    analyses: list[AnalysisView], outcome: Outcome
) -> None:
    assert roll_up(analyses).outcome is outcome
    assert roll_up(analyses[::-1]).outcome is outcome


def test_asking_again_does_not_hide_a_flag_until_the_answer_is_there() -> None:
    again = view(5, AnalysisState.QUEUED, run=1, unit=1)
    assert roll_up([FLAGGED, again]).outcome is Outcome.FLAGGED
    answered = done(5, Outcome.NOT_FLAGGED, 0.2, run=1, unit=1)
    assert roll_up([FLAGGED, answered]).outcome is Outcome.NOT_FLAGGED


@st.composite
def views(draw: st.DrawFn) -> list[AnalysisView]:
    """Give the analyses of a study: a few units with a few runs each, answered or not."""
    chosen = []
    for unit in range(draw(st.integers(0, 4))):
        for run in range(draw(st.integers(1, 3))):
            state = draw(st.sampled_from(AnalysisState))
            is_done = state is AnalysisState.DONE
            chosen.append(
                AnalysisView(
                    id=len(chosen) + 1,
                    unit=(unit, None, "chest_xray"),
                    run=run,
                    state=state,
                    outcome=draw(st.sampled_from(Outcome)) if is_done else None,
                    probability=draw(st.floats(0, 1)) if is_done else None,
                    threshold=0.5 if is_done else None,
                )
            )
    return draw(st.permutations(chosen))


@given(views())
def test_a_first_run_that_found_nothing_to_do_changes_no_outcome(
    all_of: list[AnalysisView],
) -> None:
    others = [one for one in all_of if one.run or one.state is not AnalysisState.NOT_ELIGIBLE]
    assert roll_up(others) == roll_up(all_of)


def test_the_probability_shown_is_the_highest_of_the_images() -> None:
    result = roll_up([done(6, Outcome.FLAGGED, 0.7), done(7, Outcome.FLAGGED, 0.8), NOT_FLAGGED])
    assert result.leading is not None
    assert (result.leading.probability, result.images) == (0.8, 3)


def place(
    priority: OrderPriority,
    result: StudyOutcome,
    *,
    waited: timedelta = timedelta(0),
    ai_ranking: bool = True,
) -> tuple[int, timedelta]:
    found = rank(
        first_received_at=NOON,
        now=NOON + waited,
        priority=priority,
        source=PrioritySource.DEFAULT,
        result=result,
        ai_ranking=ai_ranking,
        settings=SETTINGS,
    )
    assert found.reason
    return found.band, found.due_at - NOON


PLAIN = roll_up([NOT_FLAGGED])


def test_orders_set_the_band_and_the_due_time() -> None:
    assert place(OrderPriority.STAT, PLAIN) == (0, timedelta(minutes=30))
    assert place(OrderPriority.URGENT, PLAIN) == (1, timedelta(hours=2))
    assert place(OrderPriority.ROUTINE, PLAIN) == (2, timedelta(hours=24))


def test_a_flag_brings_a_routine_study_forward_by_its_probability() -> None:
    at_threshold = roll_up([done(1, Outcome.FLAGGED, 0.5)])
    certain = roll_up([done(1, Outcome.FLAGGED, 1.0)])
    assert place(OrderPriority.ROUTINE, at_threshold) == (1, timedelta(minutes=480))
    assert place(OrderPriority.ROUTINE, certain) == (1, timedelta(minutes=30))


def test_without_ai_ranking_a_flag_moves_nothing() -> None:
    assert place(OrderPriority.ROUTINE, roll_up([FLAGGED]), ai_ranking=False) == (
        2,
        timedelta(hours=24),
    )


def test_no_study_stays_behind_past_the_hard_cap() -> None:
    assert place(OrderPriority.ROUTINE, PLAIN, waited=timedelta(hours=71))[0] == 2
    assert place(OrderPriority.ROUTINE, PLAIN, waited=timedelta(hours=72))[0] == 1


@given(
    priority=st.sampled_from(OrderPriority),
    probability=st.floats(0.5, 1),
    waited_h=st.floats(0, 200),
)
def test_ai_never_puts_a_study_behind_its_order_or_before_a_stat(
    priority: OrderPriority, probability: float, waited_h: float
) -> None:
    waited = timedelta(hours=waited_h)
    flagged = roll_up([done(1, Outcome.FLAGGED, probability)])
    with_ai = place(priority, flagged, waited=waited)
    without = place(priority, flagged, waited=waited, ai_ranking=False)
    assert with_ai <= without
    if priority is not OrderPriority.STAT:
        assert with_ai[0] > place(OrderPriority.STAT, PLAIN)[0]


@given(low=st.floats(0.5, 1), high=st.floats(0.5, 1))
def test_a_higher_probability_is_never_due_later(low: float, high: float) -> None:
    low, high = sorted((low, high))
    assert ai_allowance(high, 0.5, SETTINGS) <= ai_allowance(low, 0.5, SETTINGS)


@pytest.mark.parametrize(
    ("by_person", "requested", "study", "ae_title", "expected"),
    [
        (OrderPriority.ROUTINE, "STAT", "", "ED_CR", ("routine", "person")),
        (None, "STAT", "LOW", "ED_CR", ("stat", "requested_procedure_priority")),
        (None, "HIGH ", "", "", ("urgent", "requested_procedure_priority")),
        (None, "", "HIGH", "ED_CR", ("urgent", "study_priority_id")),
        (None, "nonsense", "", "ED_CR", ("urgent", "ae_title")),
        (None, "", "", "OTHER", ("routine", "default")),
    ],
)
def test_the_first_source_that_names_a_priority_is_believed(
    by_person: OrderPriority | None,
    requested: str,
    study: str,
    ae_title: str,
    expected: tuple[str, str],
) -> None:
    assert (
        order_priority(
            by_person=by_person,
            requested_procedure_priority=requested,
            study_priority_id=study,
            source_ae_title=ae_title,
            settings=SETTINGS,
        )
        == expected
    )
