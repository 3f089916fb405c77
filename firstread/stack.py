"""The stack on one machine: servers, migrations and services, started, watched and stopped."""

import fcntl
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from common.errors import ConfigurationError, UnreachableError
from common.settings import Settings
from firstread.children import Child, remember, stop_leftovers
from firstread.embedded import EmbeddedServers
from firstread.migrate import migrate
from firstread.services import START_S, service_children, service_ready
from firstread.waiting import wait_until

SERVERS = ("postgres", "redis")
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
HEALTHY_AFTER_S = 60.0


class StopRequestedError(Exception):
    """Somebody asked the stack to stop while it was still starting."""


class Stack:
    """Everything that one machine runs for Firstread; a context manager that leaves nothing behind.

    Use it from the main thread: the kernel ties each child's life to the thread that started it.

    Args:
        say: Gets a line for a person at each step.
        stop: Set from outside to end the stack; checked while starting, too.
        environment: More variables for the services.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        say: Callable[[str], None],
        stop: threading.Event,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.settings = settings
        self.say = say
        self.stop_requested = stop
        self.servers = EmbeddedServers(settings, say)
        self.services = service_children(settings, environment or {})
        self.run_folder = settings.endpoints_file.parent
        self.restarts = 0
        self.killed: list[str] = []  # children that did not end by themselves
        self._lock: int | None = None
        self._restart_at_s: dict[str, float] = {}
        self._pause_s: dict[str, float] = {}

    @property
    def children(self) -> list[Child]:
        """All processes, in the order in which they start."""
        return [*self.servers.children, *self.services]

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def tend(self) -> None:
        """Restart what died, after a growing pause; bound the logs. To be called often."""
        now = time.monotonic()
        for child in self.children:
            child.bound_log()
            if child.running:
                if now - child.started_at_s > HEALTHY_AFTER_S:
                    self._pause_s.pop(child.name, None)
                continue
            due = self._restart_at_s.get(child.name)
            if due is None:
                pause = self._pause_s.get(child.name, FIRST_PAUSE_S)
                self._pause_s[child.name] = min(LONGEST_PAUSE_S, pause * 2)
                self._restart_at_s[child.name] = now + pause
                child.kill()  # what it left of its group
                self.say(
                    f"{child.name} ended ({_how(child)}); it starts again in {pause:.0f} s. "
                    f"Its log: {child.log_path}"
                )
            elif now >= due:
                del self._restart_at_s[child.name]
                child.start()
                self.restarts += 1
                remember(self.run_folder / "children.json", self.children)
                self.say(f"{child.name} started again")

    def run(self) -> None:
        """Tend the stack until somebody asks it to stop."""
        while not self.stop_requested.wait(0.25):
            self.tend()

    def _start(self) -> None:
        began = time.monotonic()
        self.settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.run_folder.mkdir(mode=0o700, exist_ok=True)
        self._take_lock()
        leftovers = stop_leftovers(self.run_folder / "children.json")
        if leftovers:
            self.say(f"stopped {leftovers} processes that an earlier stack left behind")
        check_ports(self.settings)
        self.servers.start()
        for child in self.servers.children:
            self.say(f"{child.name} ready")
        remember(self.run_folder / "children.json", self.children)
        self._check_stop()
        for sentence in migrate(self.settings):
            self.say(sentence)
        self._check_stop()
        for child in self.services:
            child.start()
            remember(self.run_folder / "children.json", self.children)
        for child in self.services:
            self._wait_for(child)
        self.say(f"up in {time.monotonic() - began:.0f} s")

    def _wait_for(self, child: Child) -> None:
        def ready() -> bool:
            self._check_stop()
            if not child.running:
                raise UnreachableError(
                    f"{child.name} ended at start ({_how(child)}):\n{child.last_lines()}"
                )
            return service_ready(child.name, self.settings, child)

        if not wait_until(ready, timeout_s=START_S, pause_s=0.1):
            raise UnreachableError(
                f"{child.name} is not ready after {START_S} s:\n{child.last_lines()}"
            )
        self.say(f"{child.name} ready")

    def _check_stop(self) -> None:
        if self.stop_requested.is_set():
            raise StopRequestedError

    def _stop(self) -> None:
        """Stop doors first, then work, then servers; kill what outstays its time."""
        services = {child.name: child for child in self.services}
        doors = [services[name] for name in ("dashboard", "listener", "beat")]
        for group in (doors, [services["worker"]], list(reversed(self.servers.children))):
            for child in group:
                child.ask_to_stop()
            for child in group:
                if not child.stop():
                    self.killed.append(child.name)
                    self.say(f"{child.name} did not stop in {child.stop_s:.0f} s and was killed")
        if self._lock is not None:
            self.servers.forget()
            (self.run_folder / "children.json").unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> None:
        path = self.run_folder / "lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = path.read_text().strip() or "unknown"
            os.close(descriptor)
            raise ConfigurationError(
                f"A stack already runs on {self.settings.home} (process {owner}). Stop it, or set "
                "FIRSTREAD_HOME, FIRSTREAD_DICOM_PORT and FIRSTREAD_DASHBOARD_PORT for a second one"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        self._lock = descriptor


def check_ports(settings: Settings) -> None:
    """See that nobody else listens where our services will.

    Raises:
        ConfigurationError: a port is taken or the address is not ours; the setting is named.
    """
    doors = [
        ("FIRSTREAD_DICOM", settings.dicom_host, settings.dicom_port),
        ("FIRSTREAD_DASHBOARD", settings.dashboard_host, settings.dashboard_port),
    ]
    if settings.dicom_tls_port is not None:
        doors.append(("FIRSTREAD_DICOM_TLS", settings.dicom_host, settings.dicom_tls_port))
    for prefix, host, port in doors:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((host, port))
            except OSError as error:
                raise ConfigurationError(
                    f"Cannot listen on {host} port {port} ({error.strerror}): set {prefix}_PORT "
                    f"to a free port, or {prefix}_HOST to an address of this machine"
                ) from error


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Turn Ctrl-C, SIGTERM and a closed terminal into an event."""
    import signal

    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _how(child: Child) -> str:
    status = child.exit_status
    if status is None:
        return "unknown"
    return f"signal {-status}" if status < 0 else f"status {status}"
