"""The dashboard's own pool of connections, one a process, whose questions may not take long."""

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st
from sqlalchemy.orm import Session, sessionmaker

from common.database import make_engine, make_sessions, storage_errors
from common.settings import get_settings

STATEMENT_TIMEOUT_S = 10


@contextmanager
def transaction() -> Iterator[Session]:
    """Open a session that commits at the end.

    Raises:
        StorageUnavailableError: the database is away or took too long; nothing was done.
    """
    with storage_errors(), _sessions(get_settings().database_address()).begin() as session:
        yield session


def _close(sessions: sessionmaker[Session]) -> None:
    sessions.kw["bind"].dispose()


@st.cache_resource(show_spinner=False, on_release=_close)
def _sessions(url: str) -> sessionmaker[Session]:
    return make_sessions(make_engine(url, statement_timeout_s=STATEMENT_TIMEOUT_S))
