"""The worklist's questions, asked of a real Postgres."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session, sessionmaker

from common.reading import claim_study, mark_read
from common.settings import Settings
from common.states import Outcome, ReadingState
from common.tables import Patient, Study
from dashboard.queries import (
    Filters,
    find_row,
    neighbours,
    prior_rows,
    pulse,
    recently_read,
    worklist_page,
)
from dashboard.status import read_failures, read_hops, read_refusals, read_set_aside, read_status
from dashboard.study_record import read_study
from tests.ledger import add_model
from tests.scene import (
    ABSTAINED,
    FAILED,
    LATERAL,
    QUEUED,
    Shot,
    add_scene_study,
    build_scene,
    flagged,
    not_flagged,
)

Sessions = sessionmaker[Session]
BARE: dict[str, Any] = {"size_px": (64, 64)}


@pytest.fixture
def model(sessions: Sessions) -> int:
    with sessions.begin() as session:
        return add_model(session, "phantom", 0.42)


def unpictured(probability: float, outcome: Outcome = Outcome.NOT_FLAGGED) -> Shot:
    shot = flagged(probability) if outcome is Outcome.FLAGGED else not_flagged(probability)
    return replace(shot, pictured=False, lesion=False)


def test_behind_500_overdue_routines_a_stat_is_first_and_a_flagged_study_before_them(
    sessions: Sessions, settings: Settings, model: int
) -> None:
    with sessions.begin() as session:
        for index in range(500):
            _add_bare(session, settings, model, minutes=25 * 60 + index)
        past_cap = _add_bare(session, settings, model, minutes=73 * 60)
        new_flagged = add_scene_study(
            session,
            settings,
            unpictured(0.6, Outcome.FLAGGED),
            minutes=1,
            model_version_id=model,
            **BARE,
        )
        stat = _add_bare(session, settings, model, minutes=0, priority="STAT")
        wanted = [study.study_instance_uid for study in (stat, past_cap, new_flagged)]
    with sessions() as session:
        page = worklist_page(session)
    assert [row.study_instance_uid for row in page.rows[:3]] == wanted
    assert {row.band for row in page.rows[3:]} == {2}
    assert all(row.due_at < page.as_of for row in page.rows[3:])
    assert page.more


def test_pages_give_each_study_once_though_studies_come_and_go_between_them(
    sessions: Sessions, settings: Settings, model: int
) -> None:
    with sessions.begin() as session:
        studies = [_add_bare(session, settings, model, minutes=60 + i) for i in range(23)]
    expected = [study.study_instance_uid for study in reversed(studies)]
    seen: list[str] = []
    after = None
    for turn in range(10):
        with sessions.begin() as session:
            page = worklist_page(session, after=after, size=5)
            seen += [row.study_instance_uid for row in page.rows]
            if not page.more:
                break
            after = page.rows[-1].key
            if turn == 0:  # a new STAT study, and one of the first page is read
                _add_bare(session, settings, model, minutes=0, priority="STAT")
                first = session.get_one(Study, page.rows[0].study_id)
                mark_read(session, first, "anna", settings, instances_seen=1)
    assert seen == expected


def test_a_page_costs_the_same_number_of_statements_for_one_study_as_for_many(
    sessions: Sessions, settings: Settings, model: int
) -> None:
    statements: list[str] = []

    def count_statements(*arguments: object) -> None:
        statements.append(str(arguments[2]))

    def cost() -> int:
        with sessions() as session:
            engine = session.get_bind()
            event.listen(engine, "before_cursor_execute", count_statements)
            statements.clear()
            rows = worklist_page(session).rows
            _ = [(row.patient_name, row.reason) for row in rows]
            event.remove(engine, "before_cursor_execute", count_statements)
        return len(statements)

    with sessions.begin() as session:
        _add_bare(session, settings, model)
    one = cost()
    with sessions.begin() as session:
        for _ in range(20):
            _add_bare(session, settings, model)
    assert cost() == one == 2


def test_filters_choose_by_outcome_band_claim_and_text(
    sessions: Sessions, settings: Settings
) -> None:
    uids = build_scene(sessions, settings, (64, 64))
    with sessions.begin() as session:
        study = session.query(Study).filter_by(study_instance_uid=uids["urgent"]).one()
        assert claim_study(session, study, "anna", settings)

    def found(filters: Filters) -> set[str]:
        with sessions() as session:
            page = worklist_page(session, filters, actor="anna")
        return {row.study_instance_uid for row in page.rows}

    flags = {uids["flagged"], uids["unsupported"]}
    assert found(Filters(outcomes=frozenset({Outcome.FLAGGED}))) == flags
    assert found(Filters(band=0)) == {uids["stat"]}
    assert found(Filters(holder="me")) == {uids["urgent"]}
    assert found(Filters(holder="others")) == set()
    assert uids["urgent"] not in found(Filters(holder="nobody"))
    assert found(Filters(text="phantom charl")) == {uids["flagged"]}
    assert found(Filters(text="SIM26999999")) == set()
    assert found(Filters(text="%")) == set()


def test_behind_the_first_of_the_list_a_search_finds_beginnings_alone(
    sessions: Sessions, settings: Settings
) -> None:
    uids = build_scene(sessions, settings, (64, 64))
    with sessions() as session:
        row = find_row(session, uids["flagged"])
    assert row is not None

    def found(text: str, within: int) -> set[str]:
        with sessions() as session:
            page = worklist_page(session, Filters(text=text), searched_within=within)
        return {each.study_instance_uid for each in page.rows}

    anywhere = ("harli", row.accession_number[-4:], row.patient_id[-3:])
    for text in anywhere:
        assert uids["flagged"] in found(text, 20_000), text
        assert uids["flagged"] not in found(text, 0), text
    for text in ("phantom charl", "PHANTOM CHARLIE", row.accession_number, row.patient_id[:-1]):
        assert uids["flagged"] in found(text, 0), text
    assert found(row.accession_number.lower(), 0) == {uids["flagged"]}
    for text in ("%", "_", "sim_", "/", "\\"):
        assert found(text, 0) == set(), text


def test_each_state_is_told_apart(sessions: Sessions, settings: Settings, model: int) -> None:
    shots = {
        Outcome.PENDING: QUEUED,
        Outcome.INCOMPLETE: FAILED,
        Outcome.ABSTAINED: ABSTAINED,
        Outcome.NOT_ELIGIBLE: LATERAL,
    }
    with sessions.begin() as session:
        for shot in shots.values():
            add_scene_study(session, settings, shot, model_version_id=model, **BARE)
        session.flush()
        outcomes = [row.outcome for row in worklist_page(session).rows]
    assert outcomes == list(shots)


def test_a_claim_that_has_run_out_is_no_claim(
    sessions: Sessions, settings: Settings, model: int
) -> None:
    short = settings.model_copy(update={"claim_min": 1e-9})
    with sessions.begin() as session:
        assert claim_study(session, _add_bare(session, settings, model), "anna", short)
    with sessions() as session:
        row = worklist_page(session).rows[0]
        mine = worklist_page(session, Filters(holder="me"), actor="anna").rows
    assert (row.state, row.claimed_by, mine) == (ReadingState.UNREAD, None, ())


def test_the_next_study_skips_what_another_reader_holds(
    sessions: Sessions, settings: Settings, model: int
) -> None:
    with sessions.begin() as session:
        first, second, third = (
            _add_bare(session, settings, model, minutes=minutes) for minutes in (30, 20, 10)
        )
        assert claim_study(session, second, "bela", settings)
        key = worklist_page(session).rows[0].key
        anna = neighbours(session, key, Filters(), "anna")
        bela = neighbours(session, key, Filters(), "bela")
        back = neighbours(session, worklist_page(session).rows[2].key, Filters(), "anna")
    assert anna == (None, third.study_instance_uid)
    assert bela == (None, second.study_instance_uid)
    assert back[0] == second.study_instance_uid
    assert first.id < third.id


def test_a_read_study_leaves_the_list_and_stands_first_among_the_read(
    sessions: Sessions, settings: Settings, model: int
) -> None:
    with sessions.begin() as session:
        study = _add_bare(session, settings, model)
        other = _add_bare(session, settings, model)
        for each in (other, study):
            mark_read(session, each, "anna", settings, instances_seen=1)
    with sessions() as session:
        assert worklist_page(session).rows == ()
        read = recently_read(session).rows
    assert [row.study_id for row in read] == [study.id, other.id]
    assert (read[0].state, read[0].read_by) == (ReadingState.READ, "anna")


def test_an_image_that_came_while_the_study_was_open_brings_it_back(
    sessions: Sessions, settings: Settings, model: int
) -> None:
    with sessions.begin() as session:
        study = add_scene_study(
            session, settings, unpictured(0.1), unpictured(0.2), model_version_id=model, **BARE
        )
        mark_read(session, study, "anna", settings, instances_seen=1)
        row = worklist_page(session).rows[0]
    assert (row.study_id, row.new_image_since_read) == (study.id, True)


def test_the_pulse_says_what_came_last_and_what_waits(
    sessions: Sessions, settings: Settings
) -> None:
    with sessions() as session:
        empty = pulse(session)
    assert (empty.listed, empty.last_received_at, empty.last_result_at) == (0, None, None)
    build_scene(sessions, settings, (64, 64))
    with sessions() as session:
        beat = pulse(session)
        page = worklist_page(session)
    assert beat.listed == len(page.rows) == 16
    assert beat.by_band == {0: 1, 1: 3, 2: 12}
    assert beat.by_outcome[Outcome.FLAGGED] == 2
    assert beat.last_received_at is not None
    assert beat.as_of - beat.last_received_at == pytest.approx(
        timedelta(minutes=1), abs=timedelta(seconds=30)
    )
    assert beat.oldest_queued_at is not None
    assert beat.ai_ranking


def test_the_study_record_puts_the_leading_image_first_and_reads_its_heatmap(
    sessions: Sessions, settings: Settings
) -> None:
    uids = build_scene(sessions, settings, (64, 64))
    with sessions() as session:
        record = read_study(session, uids["flagged"])
        assert read_study(session, "2.25.404") is None
        unsupported = read_study(session, uids["unsupported"])
    assert record is not None
    assert unsupported is not None
    first, second = record.images
    assert (first.leading, first.outcome, second.outcome) == (
        True,
        Outcome.FLAGGED,
        Outcome.NOT_FLAGGED,
    )
    assert first.heatmap is not None
    assert first.heatmap.values.shape == (15, 15)
    assert 0.8 < first.heatmap.values.max() <= 1
    assert first.heatmap.affine == (64.0, 0.0, 0.0, 0.0, 64.0, 0.0)
    assert (record.instances, record.image(second.instance_id)) == (2, second)
    assert not first.unsupported_flag
    assert unsupported.images[0].unsupported_flag
    assert [prior.prior for prior in record.priors] == [True]


def test_objects_without_a_patient_id_are_nobodys_priors(
    sessions: Sessions, settings: Settings, model: int
) -> None:
    with sessions.begin() as session:
        nameless = Patient(issuer_of_patient_id="", patient_id="2.25.1", patient_id_stated=False)
        studies = [_add_bare(session, settings, model, patient=nameless) for _ in range(2)]
        session.flush()
        assert prior_rows(session, studies[0].id) == ()


def test_the_status_counts_every_state(sessions: Sessions, settings: Settings) -> None:
    build_scene(sessions, settings, (64, 64))
    with sessions() as session:
        status = read_status(session)
        hops = {hop.name: hop for hop in read_hops(session)}
        failures = read_failures(session)
        refusals = read_refusals(session)
        aside = read_set_aside(session)
    assert status.studies == {"unread": 16, "claimed": 0, "read": 0, "prior": 1}
    assert status.analyses == {
        "queued": 1,
        "running": 0,
        "done": 16,
        "failed": 1,
        "not_eligible": 1,
    }
    assert status.outcomes["abstained"] == 1
    assert status.oldest_unread_at is not None
    assert hops["Received to result"].p50_s == pytest.approx(0.9)
    assert hops["Model, with batching"].n == 16
    assert "cut off" in failures[0].error
    assert refusals == (("view position is LL", 1),)
    assert [item.kind.value for item in aside] == ["pixels_differ"]


def test_a_claimed_study_counts_as_claimed_and_a_read_one_as_read(
    sessions: Sessions, settings: Settings, model: int
) -> None:
    with sessions.begin() as session:
        studies = [_add_bare(session, settings, model) for _ in range(3)]
        session.flush()
        assert claim_study(session, studies[0], "anna", settings)
        mark_read(session, studies[1], "bert", settings, instances_seen=1)
    with sessions() as session:
        status = read_status(session)
    assert status.studies == {"unread": 1, "claimed": 1, "read": 1, "prior": 0}
    assert sum(status.outcomes.values()) == 2  # of what is on the list
    assert status.analyses["done"] == sum(status.analyses.values()) == 3


def _add_bare(session: Session, settings: Settings, model: int, **more: Any) -> Study:  # noqa: ANN401 - as add_scene_study takes it
    """Add a study of one unflagged image without a picture."""
    shot = unpictured(0.1)
    return add_scene_study(
        session,
        settings,
        shot,
        model_version_id=model,
        **BARE,
        **more,
    )
