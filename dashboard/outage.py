"""What a page says when it cannot show what is true now: never an old list as if it were new."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import streamlit as st
from sqlalchemy.exc import ProgrammingError

from common.errors import OperatorError, StorageUnavailableError
from common.logs import get_logger
from common.settings import get_settings
from dashboard.theme import words

log = get_logger()
RETRY_S = 5
_LAST_READ = "last_read_at"
_TRY_AGAIN = "try_again_at"
_TIMEOUT = "statement timeout"  # Postgres' own words
_NO_TABLE = ("42P01", "42703")  # undefined table, undefined column


def note_read(as_of: datetime) -> None:
    """Remember when the database last answered this session."""
    st.session_state[_LAST_READ] = as_of


@contextmanager
def boundary(*, whole_page: bool = False) -> Iterator[None]:
    """Turn whatever goes wrong in a page into a sentence in its place.

    Args:
        whole_page: What is inside does not refresh by itself: try the page again when the
            database was away.
    """
    try:
        yield
    except StorageUnavailableError as error:
        log.error("page_not_drawn", reason=str(error))
        if whole_page:
            st.session_state[_TRY_AGAIN] = time.monotonic() + RETRY_S / 2
            _try_again()
        if _TIMEOUT in str(error):
            _say(
                "The database took too long",
                f"Nothing is shown, because it could be out of date. {_last_read()}",
                "A search through very many studies does this: search for more of the number or "
                "name, or take filters away. If it stays, run <code>firstread doctor</code>.",
            )
            return
        _say(
            "The database does not answer",
            f"Nothing is shown, because it could be out of date. {_last_read()}",
            "Images that scanners send meanwhile are refused with a status that makes them send "
            "again; none is lost. Read from the PACS until this page is back.",
            "On the server, run <code>firstread doctor</code>: it says what is wrong. "
            "This page tries again by itself.",
        )
    except OperatorError as error:
        log.error("page_not_drawn", reason=str(error))
        _say("The dashboard is not set up", words(error))
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) not in _NO_TABLE:
            _defect()
            return
        log.error("page_not_drawn", reason="tables are missing")
        _say(
            "The database has not been prepared",
            "Its tables are missing or older than this program.",
            "On the server, run <code>firstread migrate</code>, then load this page again.",
        )
    except Exception:  # noqa: BLE001 - the boundary: a reader must get a sentence
        _defect()


@st.fragment(run_every=RETRY_S)
def _try_again() -> None:
    """Draw the whole page again, but not at once: this runs first with the page that failed."""
    if time.monotonic() >= st.session_state[_TRY_AGAIN]:
        st.rerun()


def _defect() -> None:
    log.exception("page_not_drawn")
    _say(
        "This page could not be drawn",
        f"The fault is ours, not yours; the log of the dashboard has the details. {_last_read()}",
        "Nothing is shown, because it could be wrong. Read from the PACS until this is mended.",
    )


def _last_read() -> str:
    last: datetime | None = st.session_state.get(_LAST_READ)
    if last is None:
        return "It has not answered since this page was opened."
    here = last.astimezone(get_settings().zone)
    return f"What was shown before was read at {here:%H:%M:%S}."


def _say(heading: str, *sentences: str) -> None:
    """Write the sentences, HTML of ours, in the page's place."""
    body = "".join(f"<p>{sentence}</p>" for sentence in sentences)
    st.html(f'<div class="fr-outage" role="alert"><h1>{heading}</h1>{body}</div>')
