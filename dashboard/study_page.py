"""One study: its radiograph with heatmap, what the model says, and what the reader does."""

import streamlit as st

from common.archive import Archive
from common.reading import audit
from common.settings import get_settings
from dashboard import access, wording
from dashboard.connection import transaction
from dashboard.masthead import (
    REFRESH_S,
    draw_keyboard,
    draw_masthead,
    draw_ranking_banner,
    draw_status,
)
from dashboard.navigation import open_study
from dashboard.navigation import page as page_named
from dashboard.outage import boundary, note_read
from dashboard.place import Place, current_place
from dashboard.queries import neighbours, pulse
from dashboard.study_panel import draw_panel
from dashboard.study_record import ImageRecord, StudyRecord, read_study
from dashboard.theme import note
from dashboard.viewer import draw_viewer, image_title, overlay_by_itself
from dashboard.wording import NOT_A_DIAGNOSIS, clock

KEYS = {
    "n": "do_next",
    "p": "do_previous",
    "c": "do_claim",
    "m": "do_read",
    "u": "do_undo",
    "w": "do_worklist",
}


def show() -> None:
    """Draw the page of the study that the address names."""
    place = current_place()
    draw_masthead()
    with boundary(whole_page=True):
        uid = st.query_params.get("study") or place.selected
        if uid is None:
            note("No study was chosen. Choose one on the worklist.")
        else:
            place.selected = uid
            _study(uid, place)
    draw_keyboard(KEYS)


def _study(uid: str, place: Place) -> None:
    with transaction() as session:
        record = read_study(session, uid)
        if record is None:
            note("No such study was received here.")
            return
        if st.session_state.get("viewed") != ("study", uid):
            audit(session, access.actor(), "study_opened", uid, instances=record.instances)
    if st.session_state.get("viewed") != ("study", uid):
        st.session_state["viewed"] = ("study", uid)
        for kept in ("image", "beside", "audited_prior", "seen"):  # of the visit before
            st.session_state.pop(kept, None)
    pictures, panel = st.columns([72, 28], gap="small")
    with pictures:
        _pictures(record)
    with panel, st.container(key="panel"):
        _live_panel(uid, record, place)


def _pictures(record: StudyRecord) -> None:
    image = record.image(st.session_state.get("image"))
    prior_uid = st.session_state.get("beside")
    if image is None:
        note("This study has no object.")
        return
    if prior_uid is None:
        _viewer(record, image, key="viewer")
        return
    with transaction() as session:
        prior = read_study(session, prior_uid)
        if prior is not None and st.session_state.get("audited_prior") != prior_uid:
            audit(session, access.actor(), "study_opened", prior_uid, beside=True)
    st.session_state["audited_prior"] = prior_uid
    this, other = st.columns(2, gap="small")
    with this:
        _viewer(record, image, key="viewer")
    with other:
        prior_image = prior.image(None) if prior else None
        if prior and prior_image:
            _viewer(prior, prior_image, key="viewer_prior", prefix="Prior")
        else:
            note("This prior has no object.")


@st.fragment
def _viewer(record: StudyRecord, image: ImageRecord, *, key: str, prefix: str = "") -> None:
    with boundary():
        made = record.row.acquired_at or record.row.first_received_at
        zone = get_settings().zone
        lead = f"{prefix} of {wording.day(made, zone)} · " if prefix else ""
        position = record.images.index(image) + 1
        title = lead + image_title(image, position, len(record.images))
        _audit_image(record, image, "image_shown", heatmap=overlay_by_itself(image))
        result = draw_viewer(image, Archive(get_settings().archive_path), key=key, title=title)
        if result.heatmap_asked == image.instance_id:
            _audit_image(record, image, "heatmap_asked")


def _audit_image(record: StudyRecord, image: ImageRecord, action: str, **detail: object) -> None:
    """Record what was seen of a study: each image once a visit, however often it is drawn."""
    uid = record.row.study_instance_uid
    seen: set[tuple[object, ...]] = st.session_state.setdefault("seen", set())
    what = (st.session_state["viewed"], action, image.instance_id, image.analysis_id)
    if what in seen:
        return
    with transaction() as session:
        audit(
            session,
            access.actor(),
            action,
            uid,
            sop_instance_uid=image.sop_instance_uid,
            analysis=image.analysis_id,
            **detail,
        )
    seen.add(what)


@st.fragment(run_every=REFRESH_S)
def _live_panel(uid: str, shown: StudyRecord, place: Place) -> None:
    """Draw what may change while the study is open; the picture itself stays."""
    with boundary():
        actor = access.actor()
        with transaction() as session:
            record = read_study(session, uid)
            beat = pulse(session)
            ahead = (None, None)
            if record is not None:
                ahead = neighbours(session, record.row.key, place.filters, actor)
        if record is None:
            note("No such study was received here.")
            return
        note_read(beat.as_of)
        draw_status(beat)
        draw_ranking_banner(beat)
        _turn(*ahead)
        if _pictured(record) != _pictured(shown):
            if record.instances == shown.instances:
                st.rerun()  # the same objects, further on: a picture or a result came
            note(f"{record.instances - shown.instances} more since this page was opened.")
            if st.button("Show what has come", key="do_reload", type="primary"):
                st.rerun()
        draw_panel(record, shown, actor, beat.as_of)
        note(f"As of {clock(beat.as_of, beat.as_of, get_settings().zone)}. {NOT_A_DIAGNOSIS}")


def _pictured(record: StudyRecord) -> list[tuple[object, ...]]:
    return [
        (record.instances,),
        *(
            (image.instance_id, image.analysis_id, image.state, image.rendition)
            for image in record.images
        ),
    ]


def _turn(preceding: str | None, following: str | None) -> None:
    with st.container(key="turn", horizontal=True, horizontal_alignment="distribute"):
        if st.button("Worklist", key="do_worklist"):
            st.switch_page(page_named("worklist"))
        if st.button("Previous", key="do_previous", disabled=preceding is None) and preceding:
            open_study(preceding)
        if st.button("Next", key="do_next", disabled=following is None) and following:
            open_study(following)
