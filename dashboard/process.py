"""The dashboard's process: Streamlit, and the door for whoever watches it beside it.

``python -m dashboard.process`` takes Streamlit's own arguments; ``dashboard.serving`` writes them.
"""

import sys

from streamlit.web.cli import main as streamlit

from common.database import make_engine
from common.errors import OperatorError
from common.logs import configure_logs
from common.metrics_server import MetricsServer
from common.readiness import database_check
from common.settings import Settings, get_settings
from dashboard.address import page_answers

LOOP_ANSWERS_S = 2.0


def watched(settings: Settings) -> MetricsServer:
    """Open the door; nothing where no port is set.

    Raises:
        ConfigurationError: the address may not or cannot be bound to.
    """
    ready = []
    if settings.metrics_port is not None:
        engine = make_engine(settings.database_address(), pool_size=1, statement_timeout_s=2)
        ready.append(database_check(engine))
    alive = {"loop": lambda: page_answers(settings, LOOP_ANSWERS_S)}
    return MetricsServer(settings, "dashboard", alive=alive, ready=ready)


def main() -> None:
    """Serve pages until told to stop, or say why not."""
    try:
        settings = get_settings()
        configure_logs("dashboard", settings.log_level)
        watched(settings).start()
    except OperatorError as error:
        sys.exit(str(error))
    streamlit(prog_name="streamlit")


if __name__ == "__main__":
    main()
