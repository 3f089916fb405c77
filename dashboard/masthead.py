"""What stands on top of every page: where one is, who one is, and whether the system lives."""

from datetime import timedelta
from typing import Any

import streamlit as st
from streamlit.components.v2 import component

from common.settings import get_settings
from dashboard import access
from dashboard.navigation import page
from dashboard.queries import Pulse
from dashboard.theme import asset, banner
from dashboard.wording import clock, span

QUIET_AFTER = timedelta(minutes=10)  # nothing received for longer is worth saying
STUCK_AFTER = timedelta(minutes=2)  # work waits and no result came for longer
REFRESH_S = 5


def draw_masthead() -> None:
    """Draw all but the status line, which a page's refreshing part puts into the gap."""
    with st.container(key="masthead", horizontal=True, vertical_alignment="center"):
        st.html('<div class="fr-mark">Firstread</div>', width="content")
        st.page_link(page("worklist"), label="Worklist")
        st.page_link(page("operations"), label="Operations")
        st.space("stretch")
        with st.container(key="reader", width="content"), st.popover(_reader(), width="content"):
            _name_form()


def draw_status(pulse: Pulse, key: str = "statusline") -> None:
    """Say how old the page is, what came last and what waits; tick in the browser."""
    zone = get_settings().zone
    received = pulse.last_received_at
    counts = [("listed", f"{pulse.listed} to read", True)]
    if pulse.by_band.get(0):
        counts.append(("stat", f"{pulse.by_band[0]} STAT", True))
    line = component(
        "firstread_statusline",
        html='<div class="line" data-testid="statusline"></div>',
        css=asset("statusline.css"),
        js=asset("statusline.js"),
    )
    with st.container(key="status"):  # laid over the masthead's gap by the style sheet
        line(
            key=key,
            data={
                "items": [
                    {"name": n, "text": text, "strong": strong} for n, text, strong in counts
                ],
                "as_of": f"{pulse.as_of.astimezone(zone):%H:%M:%S}",
                "as_of_ms": pulse.as_of.timestamp() * 1000,
                "received_s": (pulse.as_of - received).total_seconds() if received else None,
                "received_at": clock(received, pulse.as_of, zone),
                "quiet_after_s": QUIET_AFTER.total_seconds(),
                "result": result_words(pulse),
            },
        )


def result_words(pulse: Pulse) -> dict[str, Any]:
    """Say when the model last answered, and warn if work waits and it does not."""
    last, oldest = pulse.last_result_at, pulse.oldest_queued_at
    at = clock(last, pulse.as_of, get_settings().zone)
    waits = pulse.as_of - oldest if oldest else timedelta()
    quiet = last is None or pulse.as_of - last > STUCK_AFTER
    if waits > STUCK_AFTER and quiet:
        since = f"No AI result since {at}" if last else "No AI result yet"
        return {"text": f"{since}, images wait for {span(waits)}", "warn": True}
    if last is None:
        return {"text": "No AI result yet", "warn": False}
    return {"text": f"Last AI result {at}", "warn": False}


def draw_ranking_banner(pulse: Pulse) -> None:
    """Say on every page that the AI does not rank, when it does not."""
    if not pulse.ai_ranking:
        banner(
            "AI ranking is off.",
            "Studies stand in the order of their orders and arrival alone. Flags are still shown.",
            name="ai-ranking-off",
        )


def draw_keyboard(bindings: dict[str, str]) -> None:
    """Let keys press buttons: from a key to the Streamlit key of its button."""
    with st.container(key="furniture"):
        component("firstread_keyboard", js=asset("keyboard.js"))(
            key="keyboard", data={"bindings": bindings}
        )


def _reader() -> str:
    """Give the popover's label; Streamlit reads labels as markdown, so a name is disarmed."""
    return "".join(
        f"\\{character}" if not character.isalnum() and character != " " else character
        for character in access.actor()
    )


def _name_form() -> None:
    st.html(
        '<div class="fr-note">Every view and step is recorded under this name. Firstread has no '
        "sign-in yet: nobody checks it, so only this machine may open the dashboard.</div>"
    )
    with st.form("reader_name", border=False):
        name = st.text_input("Your name", value=access.actor(), max_chars=access.NAME_LENGTH)
        if st.form_submit_button("Use this name") and access.rename_actor(name):
            st.rerun()
