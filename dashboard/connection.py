"""The dashboard's own pool of connections, one a process, whose questions may not take long."""

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st
from sqlalchemy.orm import Session, sessionmaker

from common.database import make_engine, make_sessions, storage_errors
from common.schema import require_schema
from common.settings import get_settings

STATEMENT_TIMEOUT_S = 10


@contextmanager
def transaction() -> Iterator[Session]:
    """Open a session that commits at the end.

    Raises:
        StorageUnavailableError: the database is away or took too long; nothing was done.
        ConfigurationError: its tables are older than this program.
    """
    with storage_errors(), _sessions(get_settings().database_address()).begin() as session:
        yield session


def _close(sessions: sessionmaker[Session]) -> None:
    sessions.kw["bind"].dispose()


@st.cache_resource(show_spinner=False, on_release=_close)
def _sessions(url: str) -> sessionmaker[Session]:
    engine = make_engine(url, statement_timeout_s=STATEMENT_TIMEOUT_S)
    try:
        require_schema(engine)  # raised, it is not cached: the next page asks again
    except Exception:
        engine.dispose()
        raise
    return make_sessions(engine)
