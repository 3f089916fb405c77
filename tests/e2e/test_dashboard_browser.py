"""A reader at the dashboard: Chromium on the served pages, over a real Postgres."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from sqlalchemy import NullPool, create_engine, select, text
from sqlalchemy.orm import Session, sessionmaker

from common.reading import claim_study
from common.settings import Settings
from common.tables import AuditEvent, ModelVersion, Study
from tests.scene import add_scene_study, build_scene, flagged

pytestmark = pytest.mark.system
Sessions = sessionmaker[Session]
CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
ROW = '[data-testid="worklist-row"]'
PATIENCE_MS = 45_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.fail(f"{CHROMIUM} is missing: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def uids(sessions: Sessions, settings: Settings) -> dict[str, str]:
    return build_scene(sessions, settings, (256, 224))


@dataclass(frozen=True)
class Server:
    """A served dashboard."""

    url: str
    process: subprocess.Popen[bytes]


@pytest.fixture
def server(settings: Settings, uids: dict[str, str]) -> Iterator[Server]:
    """Serve the dashboard as `firstread dashboard` does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "FIRSTREAD_HOME": str(settings.home),
        "FIRSTREAD_DATABASE_URL": settings.database_address(),
        "FIRSTREAD_DASHBOARD_PORT": str(port),
        "FIRSTREAD_PACS_VIEWER_URL": "https://pacs.test/?s={study_instance_uid}",
    }
    with subprocess.Popen([sys.executable, "-m", "dashboard.serving"], env=environment) as process:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while not healthy(url):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield Server(url, process)
        process.terminate()
        process.wait(20)


def healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/_stcore/health", timeout=2) as answer:  # noqa: S310
            return answer.status == 200
    except (urllib.error.URLError, TimeoutError):
        return False


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    """Open the worklist, and watch for foreign hosts, scripts of senders and page errors."""
    page = browser.new_page(viewport={"width": 1366, "height": 768})
    page.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    hosts: set[str] = set()
    errors: list[str] = []
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(server.url)
    page.locator(ROW).first.wait_for()
    yield page
    page.close()
    assert errors == []
    assert {host for host in hosts if host} == {server.url.removeprefix("http://")}


def order(page: Page) -> list[str]:
    return page.locator(ROW).evaluate_all("rows => rows.map(row => row.dataset.studyUid)")


def row(page: Page, uid: str) -> Locator:
    return page.locator(f'{ROW}[data-study-uid="{uid}"]')


def open_study(page: Page, uid: str) -> None:
    row(page, uid).dblclick()
    ready(page)


def ready(page: Page) -> None:
    page.locator('[data-testid="viewer"]:not([data-ready=""])[data-ready]').first.wait_for()


DRAWN = """(canvas, measure) => new Promise(done => {
    const look = () => {
        const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        let tinted = 0;
        for (let i = 0; i < data.length; i += 4) tinted += Math.abs(data[i] - data[i + 2]) > 12;
        const sample = Array.from({ length: 3000 }, (_, i) => data[(i * 3988) % data.length]);
        done(measure === "tinted" ? tinted : sample);
    };
    requestAnimationFrame(() => requestAnimationFrame(look));
})"""


def pixels(page: Page) -> list[int]:
    """Sample the radiograph as drawn."""
    return page.get_by_test_id("viewer-canvas").evaluate(DRAWN, "sample")


def coloured(page: Page) -> int:
    """Count the pixels that are not grey: those of the heatmap."""
    return page.get_by_test_id("viewer-canvas").evaluate(DRAWN, "tinted")


def pressed(page: Page, name: str) -> Locator:
    return page.locator(f".st-key-{name} button")


def test_a_reader_opens_claims_reads_and_undoes(
    page: Page, uids: dict[str, str], sessions: Sessions
) -> None:
    assert order(page)[:4] == [uids[name] for name in ("stat", "flagged", "urgent", "unsupported")]
    open_study(page, uids["flagged"])
    shown = coloured(page)
    assert shown > 500
    page.get_by_test_id("viewer-overlay").click()
    assert coloured(page) == 0
    page.get_by_test_id("viewer-overlay").click()
    assert coloured(page) == shown

    pressed(page, "do_claim").click()
    expect(page.get_by_text("Claimed by you")).to_be_visible()
    pressed(page, "do_read").click()
    expect(page.get_by_text("Read by")).to_be_visible()
    pressed(page, "do_worklist").click()
    page.locator(ROW).first.wait_for()
    expect(row(page, uids["flagged"])).to_have_count(0)

    page.get_by_role("radio", name="Read", exact=True).click()
    open_study(page, uids["flagged"])
    pressed(page, "do_undo").click()
    expect(pressed(page, "do_read")).to_be_visible()
    page.goto(page.url.split("/study")[0])
    expect(row(page, uids["flagged"])).to_have_count(1)
    with sessions() as session:
        actions = set(session.execute(select(AuditEvent.action)).scalars())
    assert {"study_opened", "image_shown", "study_claimed", "study_read", "study_unread"} <= actions


def test_the_keyboard_does_it_all(page: Page, uids: dict[str, str], sessions: Sessions) -> None:
    page.keyboard.press("j")
    expect(row(page, uids["flagged"])).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    ready(page)
    before = pixels(page)
    page.keyboard.press("i")
    assert pixels(page) != before
    page.keyboard.press("i")
    assert pixels(page) == before
    page.get_by_test_id("viewer-canvas").focus()
    page.keyboard.press("h")
    assert coloured(page) == 0
    page.keyboard.press("c")
    expect(page.get_by_text("Claimed by you")).to_be_visible()
    page.keyboard.press("n")
    expect(page.locator("h1")).to_contain_text("ECHO")
    page.keyboard.press("p")
    expect(page.locator("h1")).to_contain_text("CHARLIE")
    page.keyboard.press("m")
    expect(page.get_by_text("Read by")).to_be_visible()
    page.keyboard.press("u")
    expect(pressed(page, "do_read")).to_be_visible()


def test_an_unflagged_heatmap_is_shown_only_when_asked_and_that_is_audited(
    page: Page, uids: dict[str, str], sessions: Sessions
) -> None:
    def asked() -> int:
        with sessions() as session:
            found = session.execute(
                select(AuditEvent).where(AuditEvent.action == "heatmap_asked")
            ).all()
        return len(found)

    open_study(page, uids["not_flagged"])
    viewer = page.get_by_test_id("viewer")
    expect(viewer).to_have_attribute("data-overlay", "false")
    assert asked() == 0
    page.keyboard.press("h")
    expect(viewer).to_have_attribute("data-overlay", "true")
    deadline = time.monotonic() + 30
    while not asked():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    expect(viewer).to_have_attribute("data-overlay", "true")


def test_window_and_zoom_change_the_picture(page: Page, uids: dict[str, str]) -> None:
    open_study(page, uids["not_flagged"])
    as_sent = pixels(page)
    canvas = page.get_by_test_id("viewer-canvas")
    box = canvas.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 90, y + 60, steps=4)
    page.mouse.up()
    dragged = pixels(page)
    assert dragged != as_sent
    page.keyboard.press("1")
    assert pixels(page) == as_sent
    page.mouse.wheel(0, -600)
    assert pixels(page) != as_sent
    page.keyboard.press("f")
    assert pixels(page) == as_sent


def test_the_list_refreshes_itself_and_keeps_the_readers_place(
    page: Page, uids: dict[str, str], sessions: Sessions, settings: Settings
) -> None:
    row(page, uids["not_eligible"]).click()
    frame = page.get_by_test_id("worklist")
    frame.evaluate("frame => { frame.scrollTop = 200; }")
    scrolled = frame.evaluate("frame => frame.scrollTop")
    assert scrolled > 0
    with sessions.begin() as session:
        model = session.execute(select(ModelVersion.id)).scalar_one()
        new = add_scene_study(
            session, settings, flagged(0.99), minutes=0, model_version_id=model, size_px=(64, 64)
        )
        other = session.query(Study).filter_by(study_instance_uid=uids["urgent"]).one()
        assert claim_study(session, other, "bela", settings)
        uid = new.study_instance_uid
    expect(row(page, uid)).to_have_count(1)
    expect(row(page, uids["urgent"])).to_contain_text("Claimed by bela")
    expect(row(page, uids["not_eligible"])).to_have_attribute("aria-selected", "true")
    assert frame.evaluate("frame => frame.scrollTop") == scrolled


def test_what_senders_write_is_never_run(page: Page, uids: dict[str, str]) -> None:
    expect(row(page, uids["hostile"])).to_contain_text("<svg onload>, **bold**")
    expect(row(page, uids["hostile"])).to_contain_text("<img src=x onerror=document.title=1>")
    open_study(page, uids["hostile"])
    expect(page.locator("h1")).to_have_text("<svg onload>, **bold**")
    assert page.locator("img[src=x]").count() == 0
    assert page.title() == "Firstread"


def test_each_kind_of_no_answer_looks_unlike_not_flagged(page: Page, uids: dict[str, str]) -> None:
    looks = {}
    for name in ("not_flagged", "stat", "incomplete", "abstained", "not_eligible", "flagged"):
        outcome = row(page, uids[name]).get_by_test_id("outcome")
        looks[name] = (
            outcome.locator("svg").inner_html(),
            outcome.locator("span").first.inner_text(),
        )
    assert len({glyph for glyph, _ in looks.values()}) == len(looks)
    assert len({word for _, word in looks.values()}) == len(looks)


def test_a_page_whose_server_is_gone_shows_its_age(page: Page, server: Server) -> None:
    expect(page.get_by_test_id("as-of")).to_contain_text("ago")
    server.process.terminate()
    server.process.wait(20)
    expect(page.get_by_test_id("as-of")).to_contain_text("Not refreshed for")


def test_no_old_list_stands_while_the_database_is_away_and_a_new_one_comes_by_itself(
    page: Page, postgres: str, sessions: Sessions
) -> None:
    with sessions() as session:
        name = session.execute(text("SELECT current_database()")).scalar_one()
    admin = create_engine(postgres, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with admin.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
            {"name": name},
        )
    expect(page.locator(".fr-outage")).to_contain_text("The database does not answer")
    expect(page.locator(ROW)).to_have_count(0)
    page.reload()
    expect(page.locator(".fr-outage")).to_contain_text("The database does not answer")
    with admin.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
    expect(page.locator(ROW)).to_have_count(16)
    expect(page.locator(".fr-outage")).to_have_count(0)
