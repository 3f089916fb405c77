"""The worklist: what is to be read, in its order, with the reason; refreshes itself."""

from typing import Any

import streamlit as st
from sqlalchemy import select
from streamlit.components.v2 import component

from common.reading import audit, claim_study
from common.settings import get_settings
from common.states import Outcome, ReadingState
from common.tables import Study
from dashboard import access, wording
from dashboard.connection import transaction
from dashboard.masthead import (
    REFRESH_S,
    draw_keyboard,
    draw_masthead,
    draw_ranking_banner,
    draw_status,
)
from dashboard.navigation import open_study, redraw
from dashboard.outage import boundary, note_read
from dashboard.place import Place, current_place
from dashboard.queries import Filters, Holder, WorklistPage, pulse, recently_read, worklist_page
from dashboard.theme import asset, banner, key_hints, note
from dashboard.worklist_row import WorklistRow

KEYS = {"n": "do_next_page", "p": "do_previous_page"}
HINTS = {"J": "down", "K": "up", "Enter": "open", "C": "claim"}
HOLDERS: dict[str, Holder] = {"All": "any", "Unclaimed": "nobody", "Mine": "me"}


def show() -> None:
    """Draw the page."""
    place = current_place()
    draw_masthead()
    with boundary(whole_page=True):
        _audit_view(place)
        _filters(place)
        _live(place)
    draw_keyboard(KEYS)


def _audit_view(place: Place) -> None:
    """Record that the list was looked at: once a visit, not once a refresh. No search text."""
    filters = place.filters
    shown = {
        "outcomes": sorted(filters.outcomes),
        "band": filters.band,
        "holder": filters.holder,
        "searched": bool(filters.text),
        "read": place.show_read,
        "page": place.page,
    }
    if st.session_state.get("viewed") != ("worklist", shown):
        with transaction() as session:
            audit(session, access.actor(), "worklist_viewed", **shown)
        st.session_state["viewed"] = ("worklist", shown)


def _filters(place: Place) -> None:
    """Draw the filters; widgets forget what they held when another page was open."""
    held = place.filters
    initial: dict[str, Any] = {
        "filter_list": "Read" if place.show_read else "To read",
        "filter_outcome": sorted(held.outcomes),
        "filter_band": "All" if held.band is None else wording.BANDS[held.band],
        "filter_holder": next(name for name, holder in HOLDERS.items() if holder == held.holder),
        "filter_text": held.text,
    }
    for key, value in initial.items():
        st.session_state.setdefault(key, value)
    with st.container(key="filters", horizontal=True, vertical_alignment="bottom"):
        shown = st.segmented_control("List", ["To read", "Read"], key="filter_list")
        outcomes = st.pills(
            "AI",
            list(wording.OUTCOMES),
            selection_mode="multi",
            format_func=wording.OUTCOMES.__getitem__,
            key="filter_outcome",
        )
        band = st.segmented_control("Band", ["All", *wording.BANDS.values()], key="filter_band")
        holder = st.segmented_control("Claims", list(HOLDERS), key="filter_holder")
        text = st.text_input(
            "Accession number, patient name or ID", key="filter_text", max_chars=64, width=260
        )
    held_by: Holder = HOLDERS.get(holder or "", "any")
    chosen = Filters(
        outcomes=frozenset(outcomes),
        band=next((number for number, name in wording.BANDS.items() if name == band), None),
        holder=held_by,
        text=text or "",
    )
    if chosen != held or place.show_read != (shown == "Read"):
        place.filters, place.show_read, place.behind = chosen, shown == "Read", []


@st.fragment(run_every=REFRESH_S)
def _live(place: Place) -> None:
    with boundary():
        actor = access.actor()
        with transaction() as session:
            beat = pulse(session)
            if place.show_read:
                page = recently_read(session, text=place.filters.text)
            else:
                page = worklist_page(session, place.filters, after=place.after, actor=actor)
        note_read(page.as_of)
        draw_status(beat)
        draw_ranking_banner(beat)
        if place.notice:
            banner(place.notice, name="notice")
            place.notice = ""
        result = _table(page, place, actor)
        if result.open:
            place.selected = result.open
            open_study(result.open)
        if result.claim:
            place.selected = result.claim
            _claim(result.claim, place, actor)
            redraw()
        _footer(page, place)


def _table(page: WorklistPage, place: Place, actor: str) -> Any:  # noqa: ANN401 - component result
    return component(
        "firstread_worklist",
        html='<div class="frame" tabindex="0" data-testid="worklist"></div>',
        css=asset("worklist_table.css"),
        js=asset("worklist_table.js"),
    )(
        key="worklist",
        data={
            "as_of_ms": page.as_of.timestamp() * 1000,
            "page": f"{place.show_read}-{place.page}",
            "selected": place.selected,
            "claimable": not place.show_read,
            "empty_text": _empty_text(place),
            "rows": [row_data(row, page, actor) for row in page.rows],
        },
        on_open_change=lambda: None,
        on_claim_change=lambda: None,
    )


def row_data(row: WorklistRow, page: WorklistPage, actor: str) -> dict[str, Any]:
    """Give a row's texts to the table, which sets them as text and never as markup."""
    zone, now = get_settings().zone, page.as_of
    person = (wording.plain(row.patient_id), row.age, wording.plain(row.patient_sex))
    sent_by = wording.plain(row.source_ae_title)
    study = wording.plain(row.study_description) or "No description"
    number = wording.plain(row.accession_number) or "No accession number"
    priority = wording.ORDERS[row.order_priority]
    return {
        "uid": row.study_instance_uid,
        "accession": row.accession_number,
        "band": row.band,
        "band_text": wording.BANDS[row.band],
        "due_ms": row.due_at.timestamp() * 1000,
        "due_text": wording.clock(row.due_at, now, zone),
        "outcome": row.outcome.value,
        "outcome_text": wording.OUTCOMES[row.outcome],
        "probability": row.probability if _answered(row) else None,
        "probability_text": wording.number(row.probability or 0),
        "patient": wording.person_name(row.patient_name) or "No name",
        "patient_line": " · ".join(part for part in person if part) or "No patient ID",
        "study": study,
        "study_line": f"{number} · {sent_by} · {priority} order",
        "reason": wording.plain(row.reason),
        "state_text": wording.reading_state(row, actor, now, zone),
        "mine": row.claimed_by == actor,
        "new_image": row.new_image_since_read,
        "final_text": "Final" if row.final else "Provisional, more may come",
        "received_ms": row.first_received_at.timestamp() * 1000,
        "received_text": f"since {wording.clock(row.first_received_at, now, zone)}",
        "waits": row.state is not ReadingState.READ,
        "waiting_text": wording.span(row.waiting) if row.state is not ReadingState.READ else "",
    }


def _answered(row: WorklistRow) -> bool:
    """Whether the probability is the answer. A pending study may carry one image's already."""
    return row.outcome in (Outcome.FLAGGED, Outcome.NOT_FLAGGED)


def _claim(study_instance_uid: str, place: Place, actor: str) -> None:
    with transaction() as session:
        study = session.execute(
            select(Study).where(Study.study_instance_uid == study_instance_uid)
        ).scalar_one_or_none()
        if study is None or not claim_study(session, study, actor, get_settings()):
            place.notice = "Not claimed: another reader holds this study, or it has been read."


def _empty_text(place: Place) -> str:
    if place.show_read:
        return "Nothing has been marked read yet."
    if place.filters != Filters() or place.behind:
        return "Nothing on the list matches these filters here."
    return "Nothing waits to be read."


def _footer(page: WorklistPage, place: Place) -> None:
    with st.container(key="footer", horizontal=True, vertical_alignment="center"):
        with st.container(width="stretch"):
            if place.show_read:
                note(f"Read last, the newest first. {wording.NOT_A_DIAGNOSIS}")
            else:
                key_hints(HINTS, wording.NOT_A_DIAGNOSIS)
        if place.show_read:
            return
        note(f"Page {place.page}, {len(page.rows)} studies")
        if st.button("Previous page", key="do_previous_page", disabled=not place.behind):
            place.behind.pop()
            st.rerun()
        if st.button("Next page", key="do_next_page", disabled=not page.more):
            place.behind.append(page.rows[-1].key)
            st.rerun()
