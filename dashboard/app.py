"""The dashboard's entry: ``python -m dashboard.serving``, or ``streamlit run dashboard/app.py``."""

import streamlit as st

from common import metrics
from common.logs import configure_logs
from common.settings import get_settings
from dashboard import operations_page, study_page, worklist_page
from dashboard.access import require_loopback
from dashboard.navigation import set_pages
from dashboard.outage import boundary
from dashboard.theme import apply_theme

st.set_page_config(page_title="Firstread", layout="wide", initial_sidebar_state="collapsed")
apply_theme()


@st.cache_resource(show_spinner=False)
def start() -> None:
    """Do once a process what must precede the first page.

    Raises:
        ConfigurationError: the server listens where others could reach it.
    """
    settings = get_settings()
    configure_logs("dashboard", settings.log_level)
    require_loopback(settings.dashboard_host)
    require_loopback(st.get_option("server.address"))


pages = {
    "worklist": st.Page(worklist_page.show, title="Firstread", url_path="worklist", default=True),
    "study": st.Page(study_page.show, title="Firstread", url_path="study"),
    "operations": st.Page(operations_page.show, title="Firstread", url_path="operations"),
}
set_pages(pages)
page = st.navigation(list(pages.values()), position="hidden")
with boundary():
    start()
    with metrics.PAGE_SECONDS.labels(page.url_path or "worklist").time():
        page.run()
