"""From the scanner to the reader's eyes: a study is sent, stands in its place, is read."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from dashboard.address import dashboard_address
from tests.e2e.running import RunningStack
from tests.waiting import eventually

CHROMIUM = "/usr/bin/chromium"
ROW = '[data-testid="worklist-row"]'
PATIENCE_MS = 60_000


@pytest.fixture
def stack() -> Iterator[RunningStack]:
    """Run the whole stack."""
    with RunningStack(FIRSTREAD_AE_PRIORITIES="SIM_TRAUMA=stat") as running:
        yield running.start().wait_up()


@pytest.fixture
def page(stack: RunningStack) -> Iterator[Page]:
    """Open the worklist in a real browser."""
    if not Path(CHROMIUM).exists():
        pytest.fail("Chromium is missing: make system, or apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1366, "height": 768})
        page.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        page.goto(dashboard_address(stack.settings))
        yield page
        browser.close()


def send(stack: RunningStack, priority: str, *, count: int, seed: int) -> None:
    """Let the simulated scanner send frontal images of one priority."""
    result = stack.run(
        "simulate", "--plain", "--rate", "100", "--count", str(count), "--seed", str(seed),
        "--mix", f"{priority}=1",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr


def listed(stack: RunningStack) -> list[dict[str, object]]:
    """Ask the command line for the list."""
    return json.loads(stack.run("worklist", "--json").stdout)


@pytest.mark.system
def test_a_study_is_sent_appears_in_its_place_and_is_read(stack: RunningStack, page: Page) -> None:
    send(stack, "routine", count=3, seed=5)
    expect(page.locator(ROW)).to_have_count(3)

    send(stack, "stat", count=1, seed=6)
    first = page.locator(ROW).first
    expect(page.locator(ROW)).to_have_count(4)
    assert eventually(lambda: all(row["probability"] is not None for row in listed(stack)), 60)
    rows = listed(stack)
    assert [row["band"] for row in rows].count(0) == 1
    assert rows[0]["band"] == 0
    uids = [row["study_instance_uid"] for row in rows]
    expect(first).to_have_attribute("data-study-uid", str(uids[0]))
    shown = page.locator(ROW).evaluate_all("rows => rows.map(row => row.dataset.studyUid)")
    assert shown == uids

    first.dblclick()
    viewer = page.get_by_test_id("viewer")
    page.locator('[data-testid="viewer"]:not([data-ready=""])[data-ready]').first.wait_for()
    before = viewer.get_attribute("data-overlay")
    page.keyboard.press("h")
    expect(viewer).to_have_attribute("data-overlay", "false" if before == "true" else "true")
    page.locator(".st-key-do_claim button").click()
    expect(page.get_by_text("Claimed by you")).to_be_visible()
    page.locator(".st-key-do_read button").click()
    expect(page.get_by_text("Read by")).to_be_visible()
    assert uids[0] not in [row["study_instance_uid"] for row in listed(stack)]
