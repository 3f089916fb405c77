"""Operations: whether everything flows, what failed and why, and the switch of the AI ranking."""

from datetime import datetime

import streamlit as st

from common.reading import audit, rerank, switch_ai_ranking
from common.settings import get_settings
from dashboard import access, status
from dashboard.connection import transaction
from dashboard.masthead import draw_keyboard, draw_masthead, draw_ranking_banner, draw_status
from dashboard.outage import boundary, note_read
from dashboard.queries import Pulse, pulse
from dashboard.theme import figures, note, table, title
from dashboard.wording import NOT_A_DIAGNOSIS, clock, plain, span

REFRESH_S = 15
SET_ASIDE = {
    "revision": "Revision: same pixels",
    "pixels_differ": "Other pixels under the same UID",
    "hierarchy_differs": "Other study or series",
    "patient_differs": "Other patient in the same study",
}


def show() -> None:
    """Draw the page."""
    draw_masthead()
    with boundary(whole_page=True):
        if st.session_state.get("viewed") != "operations":
            with transaction() as session:
                audit(session, access.actor(), "operations_viewed")
            st.session_state["viewed"] = "operations"
        _live()
    draw_keyboard({})


@st.fragment(run_every=REFRESH_S)
def _live() -> None:
    with boundary():
        with transaction() as session:
            beat = pulse(session)
            counts = status.read_status(session)
            hops = status.read_hops(session)
            failures = status.read_failures(session)
            refusals = status.read_refusals(session)
            set_aside = status.read_set_aside(session)
            models = status.read_models(session)
        note_read(beat.as_of)
        draw_status(beat)
        draw_ranking_banner(beat)
        _switch(beat)
        left, right = st.columns([55, 45], gap="large")
        with left:
            _flow(counts)
            _failures(failures, beat.as_of)
            _set_aside(set_aside, beat.as_of)
        with right:
            _hops(hops)
            _refusals(refusals)
            _models(models, beat.as_of)
        note(NOT_A_DIAGNOSIS)


def _switch(beat: Pulse) -> None:
    with st.container(key="ranking", horizontal=True, vertical_alignment="center"):
        on = beat.ai_ranking
        with st.popover("Turn AI ranking off" if on else "Turn AI ranking on"):
            note(
                "Flagged studies go back to the place of their order. Flags stay visible."
                if on
                else "Flagged studies come forward again, never before a STAT order."
            )
            if st.button("Turn it off" if on else "Turn it on", key="switch_ranking"):
                _turn(on=not on)
                st.rerun()
        note(
            "AI ranking is on: flagged studies come forward."
            if on
            else "The list follows orders alone."
        )


def _turn(*, on: bool) -> None:
    """Switch, then move the studies a few hundred at a time, each step a transaction."""
    with transaction() as session:
        switch_ai_ranking(session, access.actor(), on=on)
    settings = get_settings()
    moved = 0
    with st.spinner("Moving studies"):
        while True:
            with transaction() as session:
                step = rerank(session, settings)
            if not step:
                break
            moved += step


def _age(at: datetime | None, now: datetime) -> str:
    return span(now - at) if at else "none"


def _flow(counts: status.Status) -> None:
    title("Flow")
    figures(
        [
            ("unread", counts.studies["unread"]),
            ("claimed", counts.studies["claimed"]),
            ("read", counts.studies["read"]),
            ("priors", counts.studies["prior"]),
            ("oldest unread", _age(counts.oldest_unread_at, counts.as_of)),
        ],
        name="studies",
    )
    figures(
        [
            ("images queued", counts.analyses["queued"]),
            ("at work", counts.analyses["running"]),
            ("done", counts.analyses["done"]),
            ("not eligible", counts.analyses["not_eligible"]),
            ("failed", counts.analyses["failed"]),
            ("oldest queued", _age(counts.oldest_queued_at, counts.as_of)),
            ("images in the last hour", counts.analysed_last_hour),
            ("studies received in it", counts.received_last_hour),
        ],
        name="analyses",
    )


def _failures(failures: tuple[status.FailedAnalysis, ...], now: datetime) -> None:
    title("Failed analyses")
    if not failures:
        note("None. A failed analysis is shown here and runs again only by a person's command.")
        return
    note("They run again by firstread retry.")
    zone = get_settings().zone
    table(
        ["When", "Accession", "Analysis", "Error", "Tries", "Lost"],
        [
            (
                clock(item.finished_at, now, zone),
                plain(item.accession_number) or "none",
                item.analysis_id,
                plain(item.error),
                item.failures,
                item.losses,
            )
            for item in failures
        ],
        name="failures",
        numeric=frozenset({2, 4, 5}),
    )


def _set_aside(objects: tuple[status.SetAsideObject, ...], now: datetime) -> None:
    title("Set aside")
    if not objects:
        note("None. Objects under a UID already taken are kept beside the archive, never merged.")
        return
    zone = get_settings().zone
    table(
        ["When", "Why", "From", "SOP Instance UID", "KiB"],
        [
            (
                clock(item.received_at, now, zone),
                SET_ASIDE[item.kind.value],
                f"{plain(item.source_ae_title)} {item.source_address}",
                item.sop_instance_uid,
                f"{item.size_bytes / 1024:.0f}",
            )
            for item in objects
        ],
        name="set-aside",
        numeric=frozenset({4}),
    )


def _hops(hops: tuple[status.Hop, ...]) -> None:
    title("Latency")
    note(f"Of the last {hops[0].n} results." if hops and hops[0].n else "No results yet.")
    table(
        ["Hop", "Median", "95 %"],
        [(hop.name, _seconds(hop.p50_s), _seconds(hop.p95_s)) for hop in hops],
        name="hops",
        numeric=frozenset({1, 2}),
    )


def _seconds(value: float | None) -> str:
    if value is None:
        return "no value"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def _refusals(refusals: tuple[tuple[str, int], ...]) -> None:
    title("Not eligible, by reason")
    if not refusals:
        note("None.")
        return
    table(
        ["Reason", "Images"],
        [(plain(reason), count) for reason, count in refusals],
        name="refusals",
        numeric=frozenset({1}),
    )


def _models(models: tuple[status.ModelRow, ...], now: datetime) -> None:
    title("Models")
    if not models:
        note("None registered.")
        return
    zone = get_settings().zone
    table(
        ["Pipeline", "Bundle", "State", "Flagged from", "Active since", "SHA-256"],
        [
            (
                item.pipeline,
                f"{item.name} {item.version}",
                item.state.value,
                "no threshold" if item.threshold is None else f"{item.threshold:.3f}",
                clock(item.activated_at, now, zone),
                item.bundle_sha256[:12],
            )
            for item in models
        ],
        name="models",
        numeric=frozenset({3}),
    )
