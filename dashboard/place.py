"""Where a reader is on the list: filters, pages turned, the study opened last; one per session."""

from dataclasses import dataclass, field

import streamlit as st

from dashboard.queries import Filters
from dashboard.worklist_row import RankKey


@dataclass
class Place:
    """Kept over pages and refreshes, lost with the session."""

    filters: Filters = field(default_factory=Filters)
    show_read: bool = False
    behind: list[RankKey] = field(default_factory=list)  # where each page turned to begins
    last_key: RankKey | None = None  # of the page shown
    selected: str | None = None  # Study Instance UID
    notice: str = ""  # said once, on the next drawing

    @property
    def after(self) -> RankKey | None:
        """The key behind which the page shown begins."""
        return self.behind[-1] if self.behind else None

    @property
    def page(self) -> int:
        """The number of the page shown, from 1."""
        return len(self.behind) + 1


def current_place() -> Place:
    """Give this session's place."""
    return st.session_state.setdefault("place", Place())
