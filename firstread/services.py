"""The four services as child processes: their commands, and how one sees that they are ready."""

import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from common.settings import Settings
from dashboard.address import page_answers
from firstread.children import Child
from firstread.logins import address_file

REPOSITORY = Path(__file__).parent.parent
START_S = 120  # a cold disk reads torch slowly


def service_children(settings: Settings, environment: Mapping[str, str]) -> list[Child]:
    """Describe listener, worker, beat and dashboard, in the order in which they start."""
    stop_s = {"listen": 20, "work": 45, "beat": 10, "dashboard": 5}
    return [
        Child(
            name=SERVICE_NAMES[command],
            command=[sys.executable, "-m", "firstread", command],
            log_path=settings.home / "logs" / f"{SERVICE_NAMES[command]}.log",
            environment={**_own_login(settings, SERVICE_NAMES[command]), **environment},
            folder=REPOSITORY,
            stop_s=seconds,
            death_signal=signal.SIGKILL,  # with the stack gone nobody would see one linger
        )
        for command, seconds in stop_s.items()
    ]


SERVICE_NAMES = {
    "listen": "listener",
    "work": "worker",
    "beat": "beat",
    "dashboard": "dashboard",
}


def _own_login(settings: Settings, service: str) -> dict[str, str]:
    """Point a service at the embedded database under its own login; no secret in its variables."""
    if settings.database_url is not None:
        return {}
    path = address_file(settings.endpoints_file.parent.resolve(), service)
    return {"FIRSTREAD_DATABASE_URL_FILE": str(path)}


def service_ready(name: str, settings: Settings, child: Child) -> bool:
    """Ask a service whether it does its work by now; beat has no door to knock at."""
    if name == "listener" and speaks_tls_alone(settings):
        return child.running and connects(settings)  # we have no certificate to ask more with
    if name == "listener":
        return echo(settings)
    if name == "worker":
        return "worker_started" in child.log_since_start()
    if name == "dashboard":
        return page_answers(settings)
    return child.running


def speaks_tls_alone(settings: Settings) -> bool:
    """Say whether the listener has no port without TLS."""
    return settings.dicom_tls_certificate is not None and settings.dicom_tls_port is None


def connects(settings: Settings) -> bool:
    """Say whether the listener's port takes connections."""
    try:
        socket.create_connection((_listener_host(settings), settings.dicom_port), timeout=5).close()
    except OSError:
        return False
    return True


def _listener_host(settings: Settings) -> str:
    anywhere = settings.dicom_host in ("0.0.0.0", "::")  # noqa: S104
    return "127.0.0.1" if anywhere else settings.dicom_host


def echo(settings: Settings) -> bool:
    """Send the listener a C-ECHO over a real association."""
    if not connects(settings):  # pynetdicom leaves a socket open for each refused connection
        return False
    host = _listener_host(settings)
    from pynetdicom import AE
    from pynetdicom.sop_class import Verification  # pyright: ignore[reportAttributeAccessIssue]

    ae = AE(ae_title="FIRSTREAD_UP")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = 5
    ae.add_requested_context(Verification)
    association = ae.associate(host, settings.dicom_port, ae_title=settings.ae_title)
    if not association.is_established:
        return False
    status = association.send_c_echo()
    association.release()
    return getattr(status, "Status", None) == 0
