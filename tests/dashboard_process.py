"""The dashboard in a test's own process, with settings as its environment would give them."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import streamlit as st
from streamlit import config

from common.settings import Settings, get_settings


@contextmanager
def dashboard_settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let pages read these settings, and forget everything cached before and after."""
    monkeypatch.setenv("FIRSTREAD_HOME", str(settings.home))
    monkeypatch.setenv("FIRSTREAD_DATABASE_URL", settings.database_address())
    before = config.get_option("server.address")
    config.set_option("server.address", "127.0.0.1")
    get_settings.cache_clear()
    st.cache_resource.clear()
    yield
    config.set_option("server.address", before)
    get_settings.cache_clear()
    st.cache_resource.clear()
