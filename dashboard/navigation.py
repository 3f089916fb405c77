"""Where the pages are: each session's pages by name, so that they can point at one another."""

from typing import Any, NoReturn

import streamlit as st
from streamlit.errors import StreamlitAPIException

_PAGES = "pages"


def set_pages(pages: dict[str, Any]) -> None:
    """Remember the session's pages."""
    st.session_state[_PAGES] = pages


def page(name: str) -> Any:  # noqa: ANN401 - Streamlit's page has no public type
    """Give a page by its name."""
    return st.session_state[_PAGES][name]


def open_study(study_instance_uid: str) -> NoReturn:
    """Go to a study's page."""
    st.switch_page(page("study"), query_params={"study": study_instance_uid})


def redraw() -> NoReturn:
    """Draw the refreshing part of a page again, or all of it if that is what is being drawn."""
    try:
        st.rerun(scope="fragment")
    except StreamlitAPIException:  # Streamlit tells only so that a whole page is being drawn
        st.rerun()
