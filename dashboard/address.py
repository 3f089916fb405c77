"""Where the dashboard is, and whether it answers there."""

import urllib.error
import urllib.request

from common.settings import Settings


def dashboard_address(settings: Settings) -> str:
    """Give the dashboard's address for a browser on this machine."""
    host = settings.dashboard_host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.dashboard_port}"


def page_answers(settings: Settings, timeout_s: float = 3) -> bool:
    """Ask the dashboard's server, whose one loop serves every page, for its health."""
    url = f"{dashboard_address(settings)}/_stcore/health"
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:  # noqa: S310 - our own address
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False
