"""What people do with a study, on a real Postgres."""

from datetime import timedelta

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session, sessionmaker

from common.lifecycle import claim, finish
from common.reading import (
    claim_study,
    mark_read,
    release_study,
    rerank,
    set_order_priority,
    switch_ai_ranking,
    undo_read,
)
from common.settings import Settings
from common.states import OrderPriority, PrioritySource
from common.tables import AuditEvent, Reading, Study, WorklistItem
from common.worklist import database_now
from tests.ledger import add_image, add_model, add_study, result

Sessions = sessionmaker[Session]


@pytest.fixture
def study(sessions: Sessions, settings: Settings) -> Study:
    with sessions.begin() as session:
        model = add_model(session)
        return add_study(session, settings, model_version_id=model)


def item(sessions: Sessions, study: Study) -> WorklistItem:
    with sessions() as session:
        return session.get_one(WorklistItem, study.id)


def test_two_readers_cannot_hold_one_study(
    sessions: Sessions, study: Study, settings: Settings
) -> None:
    with sessions.begin() as session:
        assert claim_study(session, study, "ada", settings)
        assert claim_study(session, study, "ada", settings)
        assert not claim_study(session, study, "ben", settings)
        assert not release_study(session, study, "ben", settings)
        assert release_study(session, study, "ada", settings)
        assert claim_study(session, study, "ben", settings)


def test_a_claim_that_ran_out_is_free_for_others(
    sessions: Sessions, study: Study, settings: Settings
) -> None:
    with sessions.begin() as session:
        assert claim_study(session, study, "ada", settings)
        past = database_now(session) - timedelta(seconds=1)
        session.execute(update(Reading).values(claimed_until=past))
        assert claim_study(session, study, "ben", settings)


def test_reading_takes_a_study_off_the_list_and_undo_brings_it_back(
    sessions: Sessions, study: Study, settings: Settings
) -> None:
    with sessions.begin() as session:
        mark_read(session, study, "ada", settings, instances_seen=1)
    assert not item(sessions, study).listed
    with sessions.begin() as session:
        assert not claim_study(session, study, "ben", settings)
        undo_read(session, study, "ada", settings)
    assert item(sessions, study).listed


@pytest.mark.parametrize("instances_seen", [0, 1])
def test_an_image_that_the_reader_did_not_see_brings_the_study_back(
    sessions: Sessions, study: Study, settings: Settings, instances_seen: int
) -> None:
    with sessions.begin() as session:
        mark_read(session, study, "ada", settings, instances_seen=instances_seen)
    assert item(sessions, study).listed is (instances_seen == 0)
    with sessions.begin() as session:
        add_image(session, settings, session.merge(study), model_version_id=None)
    place = item(sessions, study)
    assert place.listed
    assert place.new_image_since_read
    with sessions.begin() as session:
        assert claim_study(session, study, "ben", settings)


def test_a_person_overrules_what_the_order_said_and_can_go_back(
    sessions: Sessions, study: Study, settings: Settings
) -> None:
    with sessions.begin() as session:
        set_order_priority(session, study, "ada", OrderPriority.STAT, settings)
    place = item(sessions, study)
    assert (place.band, place.order_priority_source) == (0, PrioritySource.PERSON)
    with sessions.begin() as session:
        set_order_priority(session, study, "ada", None, settings)
    place = item(sessions, study)
    assert (place.band, place.order_priority_source) == (2, PrioritySource.DEFAULT)
    with sessions() as session:
        actions = session.execute(select(AuditEvent.action, AuditEvent.actor)).all()
    assert [tuple(action) for action in actions] == [("order_priority_changed", "ada")] * 2


def test_the_switch_moves_every_flagged_study_and_back(
    sessions: Sessions, study: Study, settings: Settings
) -> None:
    with sessions.begin() as session:
        model = session.execute(select(WorklistItem)).scalar_one().study_id
        assert model == study.id
        versions = [1]
        claimed = claim(session, worker="w", model_version_ids=versions, lease_s=60)
        assert claimed is not None
        assert finish(session, claimed, result(0.9), settings)
    assert item(sessions, study).band == 1
    for on, band in ((False, 2), (True, 1)):
        with sessions.begin() as session:
            switch_ai_ranking(session, "ada", on=on)
            assert rerank(session, settings) == 1
            assert rerank(session, settings) == 0
        assert item(sessions, study).band == band
