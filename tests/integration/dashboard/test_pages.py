"""The pages as Streamlit runs them, over a real Postgres."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker
from streamlit import config
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

import dashboard
from common.reading import claim_study
from common.settings import Settings, get_settings
from common.states import OrderPriority
from common.tables import AuditEvent, ModelVersion, Reading, Study, WorklistItem
from dashboard.queries import worklist_page
from dashboard.worklist_page import row_data
from tests.dashboard_process import dashboard_settings
from tests.scene import LATERAL, add_scene_study, build_scene, not_flagged

Sessions = sessionmaker[Session]
APP = str(Path(dashboard.__file__).with_name("app.py"))


@pytest.fixture
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Give the dashboard's process the test's settings, as its environment would."""
    monkeypatch.setenv("FIRSTREAD_PACS_VIEWER_URL", "https://pacs.test/?s={study_instance_uid}")
    with dashboard_settings(settings, monkeypatch):
        yield settings


@pytest.fixture
def uids(environment: Settings, sessions: Sessions) -> dict[str, str]:
    return build_scene(sessions, environment, (64, 64))


def run(page: str = "", **query: str) -> AppTest:
    """Open a page by its address, as a browser would."""
    test = AppTest.from_file(APP, default_timeout=60)
    if page:
        test._page_hash = calc_hash(page)  # AppTest knows only pages that are files
    for key, value in query.items():
        test.query_params[key] = value
    test.run()
    assert not test.exception
    return test


def text(test: AppTest) -> str:
    return "\n".join(str(element.proto.body) for element in test.get("html"))


def actions(sessions: Sessions) -> list[str]:
    with sessions() as session:
        return list(session.execute(select(AuditEvent.action).order_by(AuditEvent.id)).scalars())


def test_the_worklist_opens_and_says_that_it_is_no_diagnosis(
    uids: dict[str, str], sessions: Sessions
) -> None:
    test = run()
    assert "not a diagnosis" in text(test)
    assert actions(sessions) == ["worklist_viewed"]
    test.run()
    assert actions(sessions) == ["worklist_viewed"]


def test_no_search_text_reaches_the_audit(uids: dict[str, str], sessions: Sessions) -> None:
    test = run()
    test.text_input(key="filter_text").set_value("PHANTOM CHARLIE").run()
    assert not test.exception
    test.run()
    with sessions() as session:
        details = session.execute(select(AuditEvent.detail)).scalars().all()
    assert any(detail["searched"] for detail in details)
    assert "CHARLIE" not in str(details)


def test_what_senders_write_stays_text(uids: dict[str, str], sessions: Sessions) -> None:
    with sessions() as session:
        page = worklist_page(session)
    row = next(row for row in page.rows if row.study_instance_uid == uids["hostile"])
    data = row_data(row, page, "anna")
    assert data["patient"] == "<svg onload>, **bold**"  # the table sets it as text
    assert data["study"].startswith("<img src=x")


def test_without_a_database_the_page_says_so_and_shows_no_list(
    environment: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTREAD_DATABASE_URL", "postgresql+psycopg://nobody@127.0.0.1:1/none")
    get_settings.cache_clear()
    test = run()
    assert "The database does not answer" in text(test)
    assert "firstread doctor" in text(test)
    assert "to read" not in text(test)


def test_without_tables_the_page_says_what_to_run(
    environment: Settings, empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTREAD_DATABASE_URL", empty_database_url)
    get_settings.cache_clear()
    assert "firstread migrate" in text(run())


def test_it_refuses_an_address_that_others_can_reach(
    environment: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.set_option("server.address", "0.0.0.0")  # noqa: S104 - what must be refused
    page = text(run())
    assert "The dashboard is not set up" in page
    assert "sign-in" in page


def press(test: AppTest, key: str) -> None:
    test.button(key=key).click().run()
    assert not test.exception


def test_a_study_is_claimed_released_read_and_brought_back(
    uids: dict[str, str], sessions: Sessions
) -> None:
    test = run("study", study=uids["flagged"])
    assert test.button(key="do_claim").label == "Claim"
    press(test, "do_claim")
    assert "Claimed by you" in text(test)
    assert test.button(key="do_claim").label == "Release"
    press(test, "do_claim")
    assert "Unread" in text(test)
    press(test, "do_read")
    assert "Read by" in text(test)
    with sessions() as session:
        assert uids["flagged"] not in {r.study_instance_uid for r in worklist_page(session).rows}
        assert session.execute(select(Reading.instances_read)).scalar_one() == 2
    press(test, "do_undo")
    with sessions() as session:
        assert uids["flagged"] in {r.study_instance_uid for r in worklist_page(session).rows}
    assert actions(sessions) == [
        "study_opened",
        "image_shown",
        "study_claimed",
        "study_released",
        "study_claimed",
        "study_read",
        "study_unread",
    ]


def test_what_another_reader_holds_can_be_seen_but_not_taken(
    uids: dict[str, str], sessions: Sessions, environment: Settings
) -> None:
    with sessions.begin() as session:
        study = session.query(Study).filter_by(study_instance_uid=uids["urgent"]).one()
        assert claim_study(session, study, "bela", environment)
    test = run("study", study=uids["urgent"])
    assert "Claimed by" in text(test)
    assert "bela" in text(test)
    assert test.button(key="do_claim").disabled
    assert test.button(key="do_read").disabled


def test_a_person_raises_and_resets_the_priority(uids: dict[str, str], sessions: Sessions) -> None:
    test = run("study", study=uids["not_flagged"])
    press(test, "priority_stat")
    with sessions() as session:
        assert uids["not_flagged"] in {
            row.study_instance_uid for row in worklist_page(session).rows if row.band == 0
        }
    assert "set by a person" in text(test)
    press(test, "priority_reset")
    with sessions() as session:
        item = session.execute(
            select(WorklistItem).join(Study).where(Study.study_instance_uid == uids["not_flagged"])
        ).scalar_one()
    assert item.order_priority is OrderPriority.ROUTINE


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("flagged", ["Flagged", "0.91", "about 91 were", "Highest of 2 images"]),
        ("unsupported", ["No localisation supports the flag"]),
        ("not_flagged", ["Not flagged", "0.12", "says nothing about what the model missed"]),
        ("stat", ["Pending", "No AI opinion yet", "Provisional"]),
        ("incomplete", ["Incomplete", "an analysis failed", "no end marker"]),
        ("abstained", ["Abstained", "gives no opinion"]),
        ("not_eligible", ["Not eligible", "view position is LL"]),
    ],
)
def test_the_study_page_says_what_the_model_said(
    uids: dict[str, str], name: str, words: list[str]
) -> None:
    page = text(run("study", study=uids[name]))
    assert [word for word in words if word not in page] == []
    assert "normal" not in page.replace("abnormal", "")


@pytest.mark.parametrize("name", ["stat", "incomplete", "abstained", "not_eligible"])
def test_no_probability_stands_where_there_is_no_answer(uids: dict[str, str], name: str) -> None:
    assert "Of 100 images" not in text(run("study", study=uids[name]))


def test_text_from_senders_is_never_markup(uids: dict[str, str]) -> None:
    page = text(run("study", study=uids["hostile"]))
    assert "&lt;svg onload&gt;" in page
    assert "<svg onload" not in page
    assert "<img" not in page
    assert "&lt;i&gt;A&lt;/i&gt;&amp;amp;" in page


def test_an_unknown_study_is_said_to_be_unknown(uids: dict[str, str], sessions: Sessions) -> None:
    assert "No such study" in text(run("study", study="2.25.404"))
    assert actions(sessions) == []


def test_operations_shows_failures_and_switches_the_ranking(
    uids: dict[str, str], sessions: Sessions
) -> None:
    test = run("operations")
    page = text(test)
    assert "no end marker" in page
    assert "view position is LL" in page
    assert "Other pixels under the same UID" in page
    press(test, "switch_ranking")
    assert "AI ranking is off" in text(test)
    with sessions() as session:
        rows = {row.study_instance_uid: row for row in worklist_page(session).rows}
    assert rows[uids["flagged"]].band == 2
    assert "AI ranking is off" in text(run())
    assert "AI ranking is off" in text(run("study", study=uids["flagged"]))
    press(test, "switch_ranking")
    with sessions() as session:
        rows = {row.study_instance_uid: row for row in worklist_page(session).rows}
    assert rows[uids["flagged"]].band == 1


def test_the_name_that_a_reader_types_is_the_one_that_is_audited(
    uids: dict[str, str], sessions: Sessions
) -> None:
    test = run("study", study=uids["flagged"])
    test.text_input[0].set_value("  Dr.\u202e Anna_*Example*  ")
    next(button for button in test.button if button.label == "Use this name").click().run()
    press(test, "do_claim")
    with sessions() as session:
        assert session.execute(select(Reading.claimed_by)).scalar_one() == "Dr. Anna_*Example*"


def test_a_refused_image_is_never_counted_as_analysed(
    uids: dict[str, str], sessions: Sessions, environment: Settings
) -> None:
    with sessions.begin() as session:
        model = session.execute(select(ModelVersion.id)).scalars().first()
        refused = replace(LATERAL, view_position="AP", reasons=("black and white exchanged",))
        study = add_scene_study(
            session,
            environment,
            not_flagged(0.1),
            refused,
            model_version_id=model,
            size_px=(64, 64),
        )
        uid = study.study_instance_uid

    page = text(run("study", study=uid))

    assert "One of 2 images analysed" in page
    assert "1 image was not analysed" in page
    assert "all images are analysed" not in page
