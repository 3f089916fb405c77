"""The door for whoever watches: /metrics, /healthz, /readyz, in threads of the service's own."""

from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from threading import BoundedSemaphore, Thread
from typing import Any, Self

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from common.errors import ConfigurationError
from common.logs import get_logger
from common.metrics import REGISTRY, state_build
from common.readiness import Check
from common.settings import Settings

SERVICES = ("listener", "worker", "beat", "dashboard")
PROCESSES = 16  # of one service, on one machine
_REQUESTS = 16
_REQUEST_TIMEOUT_S = 5.0

log = get_logger()


class MetricsServer:
    """Serve what a process counts and how it is; nothing at all while no port is set.

    The first process of a service takes the port of its service, each further one on the same
    machine the next free one, four higher.
    """

    def __init__(
        self,
        settings: Settings,
        service: str,
        *,
        alive: Mapping[str, Callable[[], bool]] | None = None,
        ready: Sequence[Check] = (),
    ) -> None:
        """Bind.

        Args:
            alive: Says of each loop of the process whether it moves.
            ready: What the service needs for its job.

        Raises:
            ConfigurationError: the address would let others in, or no port is free.
        """
        self.port: int | None = None
        self._server: _Server | None = None
        if settings.metrics_port is None:
            return
        require_permitted(settings)
        state_build(service)
        first = settings.metrics_port + SERVICES.index(service)
        reason: str | None = None
        for port in range(first, first + len(SERVICES) * PROCESSES, len(SERVICES)):
            try:
                self._server = _Server((settings.metrics_host, port), alive or {}, ready)
            except OSError as error:
                reason = error.strerror
                continue
            self.port = port
            return
        raise ConfigurationError(
            f"Cannot serve metrics on {settings.metrics_host} from port {first} ({reason}): "
            "change FIRSTREAD_METRICS_PORT or FIRSTREAD_METRICS_HOST"
        )

    def start(self) -> Self:
        """Serve from now on."""
        if self._server is not None:
            Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()
            log.info("metrics_served", port=self.port)
        return self

    def stop(self) -> None:
        """Serve no more. Only after ``start``."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def require_permitted(settings: Settings) -> None:
    """Refuse an address beyond loopback that the site did not ask for twice.

    Raises:
        ConfigurationError: it is one.
    """
    if settings.metrics_beyond_loopback:
        return
    try:
        is_loopback = ip_address(settings.metrics_host).is_loopback
    except ValueError:
        is_loopback = settings.metrics_host == "localhost"
    if not is_loopback:
        raise ConfigurationError(
            f"FIRSTREAD_METRICS_HOST is {settings.metrics_host}: metrics have no sign-in. Keep it "
            "on loopback, or set FIRSTREAD_METRICS_BEYOND_LOOPBACK=true behind a firewall"
        )


class _Server(ThreadingHTTPServer):
    """A server of a few requests at a time; those too many are hung up on."""

    daemon_threads = True
    request_queue_size = _REQUESTS

    def __init__(
        self,
        address: tuple[str, int],
        alive: Mapping[str, Callable[[], bool]],
        ready: Sequence[Check],
    ) -> None:
        self.alive, self.ready = alive, ready
        self._places = BoundedSemaphore(_REQUESTS)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - theirs
        """Answer in a thread of its own, if there is a place for one more."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Give the place back at the end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - theirs
        """Leave a client that hung up without a word in the log."""
        log.debug("metrics_request_failed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """Answer GET on three paths."""

    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]
    timeout = _REQUEST_TIMEOUT_S
    server_version = "firstread"
    sys_version = ""

    def do_GET(self) -> None:
        """Give metrics, or how the process is: 200 if well, else 503 and what is not."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(200, generate_latest(REGISTRY), CONTENT_TYPE_LATEST)
        elif path == "/healthz":
            self._report(
                [
                    (name, "" if ask() else "does not move")
                    for name, ask in self.server.alive.items()
                ]
            )
        elif path == "/readyz":
            self._report([(check.name, check.problem()) for check in self.server.ready])
        else:
            self._answer(404, b"not found\n")

    def log_message(self, format: str, *args: object) -> None:
        """Log no request: a scrape every few seconds is no news."""

    def _report(self, found: Sequence[tuple[str, str]]) -> None:
        lines = "".join(f"{name}: {problem or 'ok'}\n" for name, problem in found) or "ok\n"
        is_well = not any(problem for _, problem in found)
        self._answer(200 if is_well else 503, lines.encode("ascii", "replace"))

    def _answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)
