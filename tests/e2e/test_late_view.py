"""A view that is taken ten minutes after the first: the study comes back, even when it was read."""

from pathlib import Path

import pytest
from sqlalchemy import select, text
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

import dashboard
from common.settings import Settings
from common.states import AnalysisState, Outcome
from common.tables import Analysis, Instance
from dashboard.queries import find_row, worklist_page
from dashboard.worklist_row import WorklistRow
from tests.dashboard_process import dashboard_settings
from tests.faults.objects import Objects
from tests.faults.sending import Sending
from tests.faults.stack import Stack
from tests.waiting import eventually

APP = str(Path(dashboard.__file__).with_name("app.py"))
TEN_MINUTES_AGO = (
    "UPDATE study SET first_received_at = first_received_at - interval '10 minutes',"
    " last_received_at = last_received_at - interval '10 minutes'",
    "UPDATE instance SET received_at = received_at - interval '10 minutes'",
)


def row_of(stack: Stack, study_instance_uid: str) -> WorklistRow:
    """Read a study as the worklist shows it."""
    with stack.sessions() as session:
        row = find_row(session, study_instance_uid)
    assert row is not None
    return row


def listed(stack: Stack) -> list[str]:
    """List the studies that wait for a reader."""
    with stack.sessions() as session:
        return [row.study_instance_uid for row in worklist_page(session).rows]


def let_ten_minutes_pass(stack: Stack) -> None:
    """Move what was received into the past: the site's two minutes of quiet are over."""
    with stack.sessions.begin() as session:
        for statement in TEN_MINUTES_AGO:
            assert session.execute(text(statement)).rowcount > 0  # pyright: ignore


def send_one(stack: Stack, objects: Objects) -> Sending:
    """Send the next view on an association of its own."""
    sending = stack.send(objects=objects, associations=1, per_association=1, at_least=1)
    sending.finish()
    assert sending.given_up == []
    return sending


def open_study(study_instance_uid: str) -> AppTest:
    """Open a study's page, as a browser would."""
    page = AppTest.from_file(APP, default_timeout=120)
    page._page_hash = calc_hash("study")  # AppTest knows only pages that are files
    page.query_params["study"] = study_instance_uid
    page.run()
    assert not page.exception
    return page


def read(study_instance_uid: str) -> None:
    """Say on a study's page that it has been read."""
    page = open_study(study_instance_uid)
    page.button(key="do_read").click().run()
    assert not page.exception
    assert "Read by" in said(page)


def said(page: AppTest) -> str:
    """Give what a page says."""
    return "\n".join(str(element.proto.body) for element in page.get("html"))


@pytest.mark.system
def test_a_second_view_ten_minutes_later_brings_a_study_that_was_read_back_with_its_own_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Stack(FIRSTREAD_SETTLE_AFTER_S="120") as stack:
        objects = Objects(stack.folder / "views", images_per_study=2)
        settings = Settings.model_validate(
            {"home": stack.folder / "home", "database_url": stack.postgres.url()}
        )
        first = send_one(stack, objects)
        (view,) = objects.made.values()
        uid = view.study_instance_uid
        stack.drain()
        row = row_of(stack, uid)
        assert (row.outcome, row.final, row.images) == (Outcome.FLAGGED, False, 1)
        let_ten_minutes_pass(stack)
        assert eventually(lambda: row_of(stack, uid).final, 60), "upkeep did not settle it"
        with dashboard_settings(settings, monkeypatch):
            read(uid)
            row = row_of(stack, uid)
            assert uid not in listed(stack)
            assert not row.new_image_since_read

            # Nobody works for a moment, so that what comes in between can be seen.
            (worker,) = stack.workers
            assert worker.terminate() == 0
            second = send_one(stack, objects)
            late = next(one for one in objects.made.values() if one != view)
            assert late.study_instance_uid == uid
            row = row_of(stack, uid)
            # What flagged it stands, but it is final no more.
            assert (row.outcome, row.final, row.images) == (Outcome.FLAGGED, False, 1)
            assert uid in listed(stack)
            assert row.new_image_since_read
            assert "New image since it was read" in said(open_study(uid))

            worker.start()
            worker.wait_ready()
            stack.drain()
            row = row_of(stack, uid)
            assert (row.outcome, row.final, row.images) == (Outcome.FLAGGED, False, 2)
            let_ten_minutes_pass(stack)
            assert eventually(lambda: row_of(stack, uid).final, 60), "it did not settle again"
            assert row_of(stack, uid).new_image_since_read, "the badge stays until it is read"
            read(uid)
            assert uid not in listed(stack)
            assert not row_of(stack, uid).new_image_since_read
        with stack.sessions() as session:
            done = session.execute(
                select(Instance.sop_instance_uid, Analysis.score)
                .join(Analysis, Analysis.instance_id == Instance.id)
                .where(Analysis.state == AnalysisState.DONE)
            ).all()
        scores = sorted((row.sop_instance_uid, row.score) for row in done)
        assert scores == sorted((one.sop_instance_uid, one.number) for one in (view, late))
        stack.more_faults["second view ten minutes later"] += 1
        stack.tally("a second view after ten minutes", first, second).check()
