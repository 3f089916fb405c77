"""The study page's right-hand side: who, what the model says, why it stands here, what to do."""

from collections.abc import Callable, Iterable
from datetime import datetime
from html import escape
from urllib.parse import quote

import streamlit as st
from sqlalchemy import select
from sqlalchemy.orm import Session

from common.reading import claim_study, mark_read, release_study, set_order_priority, undo_read
from common.settings import get_settings
from common.states import AnalysisState, OrderPriority, Outcome, PrioritySource, ReadingState
from common.tables import Study
from dashboard import wording
from dashboard.connection import transaction
from dashboard.navigation import redraw
from dashboard.study_record import ImageRecord, StudyRecord
from dashboard.theme import banner, note, title, words
from dashboard.worklist_row import WorklistRow

STATES = {
    AnalysisState.QUEUED: "Queued",
    AnalysisState.RUNNING: "At work",
    AnalysisState.FAILED: "Failed",
    AnalysisState.NOT_ELIGIBLE: "Not eligible",
}


def draw_panel(record: StudyRecord, shown: StudyRecord, actor: str, now: datetime) -> None:
    """Draw it; ``shown`` is what the reader has been shown of the study, and can have read."""
    row = record.row
    _patient(row)
    _outcome(row, record)
    _facts(row, actor, now)
    _actions(row, shown.instances, actor)
    _priority(row, actor)
    _images(record)
    _priors(record.priors, now)


def _patient(row: WorklistRow) -> None:
    name = wording.person_name(row.patient_name) or "No name"
    person = (wording.plain(row.patient_id) or "No patient ID", row.age, row.patient_sex)
    made = row.acquired_at or row.first_received_at
    study = (
        wording.plain(row.study_description) or "No description",
        wording.plain(row.accession_number) or "No accession number",
        wording.day(made, get_settings().zone),
    )
    st.html(
        f'<div class="fr-patient"><h1 data-testid="patient">{words(name)}</h1>'
        f"<p>{_joined(person)}</p><p>{_joined(study)}</p></div>"
    )


def _outcome(row: WorklistRow, record: StudyRecord) -> None:
    images, pictures = record.images, record.pictures
    answered = row.outcome in (Outcome.FLAGGED, Outcome.NOT_FLAGGED)
    lines = [wording.MEANINGS[row.outcome]]
    shown = ""
    if answered and row.probability is not None:
        shown = wording.number(row.probability)
        lines += [wording.in_words(row.probability), wording.highest_of(row.images, pictures)]
    leading = next((image for image in images if image.leading), None)
    lines.append(wording.settled(final=row.final, analysed=row.images, pictures=pictures))
    if leading and answered and leading.threshold is not None:
        lines.append(f"Flagged from {leading.threshold:.2f}. Model {leading.model}.")
    body = "".join(f"<p>{escape(line)}</p>" for line in lines)
    if leading and leading.unsupported_flag:
        body += '<p class="caution">No localisation supports the flag.</p>'
    st.html(
        f'<div class="fr-outcome {row.outcome.value}"><div class="head">'
        f"<span>{wording.OUTCOMES[row.outcome]}</span>"
        f'<span class="p">{escape(shown)}</span></div>{body}</div>'
    )


def _facts(row: WorklistRow, actor: str, now: datetime) -> None:
    zone = get_settings().zone
    left = row.due_at - now
    due = (
        wording.span(-left) + " overdue" if left.total_seconds() < 0 else "in " + wording.span(left)
    )
    facts = {
        "Due": f"{due}, at {wording.clock(row.due_at, now, zone)}",
        "Band": wording.BANDS[row.band],
        "Why here": wording.plain(row.reason),
        "Waiting": f"{wording.span(row.waiting)}, "
        f"since {wording.clock(row.first_received_at, now, zone)}",
        "State": wording.reading_state(row, actor, now, zone),
    }
    if not row.listed:
        facts = {"State": facts["State"]}
    body = "".join(f"<dt>{name}</dt><dd>{words(value)}</dd>" for name, value in facts.items())
    st.html(f'<dl class="fr-facts">{body}</dl>')


def _actions(row: WorklistRow, instances_seen: int, actor: str) -> None:
    uid, settings = row.study_instance_uid, get_settings()
    mine = row.state is ReadingState.CLAIMED and row.claimed_by == actor
    held = row.state is ReadingState.CLAIMED and not mine
    if message := st.session_state.pop("panel_message", ""):
        banner(message, name="notice")
    with st.container(key="actions", horizontal=True):
        if row.state is ReadingState.READ:
            if st.button("Undo: back on the list", key="do_undo"):
                _change(uid, lambda session, study: undo_read(session, study, actor, settings))
        else:
            if mine:
                if st.button("Release", key="do_claim"):
                    _change(
                        uid, lambda session, study: release_study(session, study, actor, settings)
                    )
            elif st.button("Claim", key="do_claim", disabled=held):
                _change(uid, lambda session, study: claim_study(session, study, actor, settings))
            if st.button("Mark read", key="do_read", type="primary", disabled=held):
                _change(
                    uid,
                    lambda session, study: _read_unless_held(session, study, actor, instances_seen),
                )
        link = viewer_link(
            settings.pacs_viewer_url,
            study_instance_uid=uid,
            accession_number=row.accession_number,
        )
        if link:
            st.link_button("PACS viewer", link)


def _read_unless_held(session: Session, study: Study, actor: str, instances_seen: int) -> bool:
    """Mark read under a claim, so that two readers cannot both close one study unawares."""
    settings = get_settings()
    if not claim_study(session, study, actor, settings):
        return False
    mark_read(session, study, actor, settings, instances_seen=instances_seen)
    return True


def _change(uid: str, step: Callable[[Session, Study], object]) -> None:
    """Take one step in one transaction, and draw the page anew."""
    with transaction() as session:
        study = session.execute(select(Study).where(Study.study_instance_uid == uid)).scalar_one()
        if step(session, study) is False:
            st.session_state["panel_message"] = (
                "Not done: another reader holds this study, or it was changed meanwhile."
            )
    redraw()


def viewer_link(template: str, *, study_instance_uid: str, accession_number: str) -> str:
    """Fill the site's viewer address in; nothing that a sender wrote can leave its place in it."""
    return template.replace("{study_instance_uid}", quote(study_instance_uid, safe="")).replace(
        "{accession_number}", quote(accession_number, safe="")
    )


def _priority(row: WorklistRow, actor: str) -> None:
    if row.state is ReadingState.READ:
        return
    by_person = row.order_priority_source is PrioritySource.PERSON
    label = f"Order priority: {wording.ORDERS[row.order_priority]}"
    with st.popover(label, width="stretch"):
        st.html(f'<div class="fr-note">Now {wording.SOURCES[row.order_priority_source]}.</div>')
        with st.container(key="priority", horizontal=True):
            for priority in OrderPriority:
                same = by_person and row.order_priority is priority
                if st.button(
                    wording.ORDERS[priority], key=f"priority_{priority.value}", disabled=same
                ):
                    _prioritise(row.study_instance_uid, actor, priority)
            if st.button("As ordered", key="priority_reset", disabled=not by_person):
                _prioritise(row.study_instance_uid, actor, None)


def _prioritise(uid: str, actor: str, priority: OrderPriority | None) -> None:
    settings = get_settings()
    _change(
        uid, lambda session, study: set_order_priority(session, study, actor, priority, settings)
    )


def _images(record: StudyRecord) -> None:
    chosen = record.image(st.session_state.get("image"))
    title(f"Images ({record.instances})")
    for position, image in enumerate(record.images, start=1):
        with st.container(key=f"image_{position}", horizontal=True, vertical_alignment="center"):
            pressed = st.button(
                f"Image {position}",
                key=f"show_image_{position}",
                type="primary" if image is chosen else "secondary",
            )
            st.html(_image_line(image))
            if pressed:
                st.session_state["image"] = image.instance_id
                st.rerun()
    _more_images(record)


def _more_images(record: StudyRecord) -> None:
    hidden = record.instances - len({image.instance_id for image in record.images})
    if hidden > 0:
        note(f"{hidden} more objects are not listed here; open the study in the PACS viewer.")


def _image_line(image: ImageRecord) -> str:
    if image.state is AnalysisState.DONE and image.outcome is not None:
        result = wording.OUTCOMES[image.outcome]
        if image.outcome is not Outcome.ABSTAINED:
            result += f" {wording.number(image.probability or 0)}"
    else:
        result = STATES.get(image.state, "Not analysed") if image.state else "Not analysed"
    parts = [image.modality, image.view_position, result, *image.reasons]
    if image.state is AnalysisState.FAILED and image.error:
        parts.append(image.error)
    return f'<div class="fr-note">{_joined(wording.plain(part) for part in parts)}</div>'


def _priors(priors: tuple[WorklistRow, ...], now: datetime) -> None:
    if not priors:
        return
    title(f"Same patient ({len(priors)})")
    zone = get_settings().zone
    beside = st.session_state.get("beside")
    for index, prior in enumerate(priors):
        uid = prior.study_instance_uid
        made = prior.acquired_at or prior.first_received_at
        with st.container(key=f"prior_{index}", horizontal=True, vertical_alignment="center"):
            label = "Close" if beside == uid else "Beside"
            if st.button(label, key=f"beside_{index}"):
                st.session_state["beside"] = None if beside == uid else uid
                st.rerun()
            result = wording.OUTCOMES[prior.outcome]
            if prior.outcome in (Outcome.FLAGGED, Outcome.NOT_FLAGGED):
                result += f" {wording.number(prior.probability or 0)}"
            age = f"{(now - made).days} d before" if (now - made).days else "today"
            parts = (wording.day(made, zone), age, wording.plain(prior.study_description), result)
            st.html(f'<div class="fr-note">{_joined(parts)}</div>')


def _joined(parts: Iterable[str]) -> str:
    return " · ".join(words(part) for part in parts if part)
