"""Start the dashboard on the site's address: ``python -m dashboard.serving``."""

import os
import sys
from pathlib import Path

from common.errors import OperatorError
from common.settings import Settings, get_settings
from dashboard.access import require_loopback

APP = Path(__file__).with_name("app.py")


def command(settings: Settings) -> list[str]:
    """Give the command that serves the dashboard; its look lies in ``.streamlit/config.toml``.

    Raises:
        ConfigurationError: the address is not loopback.
    """
    require_loopback(settings.dashboard_host)
    return [
        *(sys.executable, "-m", "dashboard.process", "run", str(APP)),
        f"--server.address={settings.dashboard_host}",
        f"--server.port={settings.dashboard_port}",
        f"--browser.serverAddress={settings.dashboard_host}",
    ]


def main() -> None:
    """Become the dashboard's process, or say why not."""
    try:
        arguments = command(get_settings())
    except OperatorError as error:
        sys.exit(str(error))
    os.execv(arguments[0], arguments)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
