"""Several listener processes on one port: the kernel deals connections out between them.

Each is a whole listener with limits of its own; they share Postgres and the archive, as listeners
on several hosts do. This one starts them, replaces those that die, and stops them all.
"""

import errno
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

from common.errors import ConfigurationError
from common.logs import get_logger
from common.settings import Settings

STOP_S = 25.0  # more than a listener gives the objects under way
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
_LOOK_EVERY_S = 0.5

log = get_logger()


class Processes:
    """Keep so many processes running until told to stop."""

    def __init__(self, settings: Settings, serve: Callable[[Settings], None]) -> None:
        """Take what each of them runs until SIGTERM.

        Raises:
            ConfigurationError: somebody else listens on a port of ours.
        """
        for port in {settings.dicom_port, settings.dicom_tls_port} - {None}:
            _require_free(settings.dicom_host, int(port or 0))
        self._settings = settings
        self._serve = serve
        # Never forked: threads and connections would come along.
        self._context = get_context("spawn")
        self._running: list[BaseProcess] = []

    def run(self, stopping: threading.Event) -> None:
        """Run them until the flag is set, then let each end what is under way."""
        pause_s = _FIRST_PAUSE_S
        try:
            while not stopping.is_set():
                while len(self._running) < self._settings.dicom_processes:
                    self._running.append(self._start())
                began = time.monotonic()
                wait([one.sentinel for one in self._running], timeout=_LOOK_EVERY_S)
                dead = [one for one in self._running if not one.is_alive()]
                for one in dead:
                    log.error("listener_process_died", died_pid=one.pid, exit_code=one.exitcode)
                    self._running.remove(one)
                if dead and not stopping.is_set():
                    stopping.wait(pause_s)
                    pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                elif time.monotonic() - began >= _LOOK_EVERY_S:
                    pause_s = max(_FIRST_PAUSE_S, 0.99 * pause_s)
        finally:
            self._stop()

    def _start(self) -> BaseProcess:
        process = self._context.Process(
            target=_serve_until_orphaned, args=(self._serve, self._settings)
        )
        process.start()
        return process

    def _stop(self) -> None:
        for one in self._running:
            one.terminate()
        deadline = time.monotonic() + STOP_S
        for one in self._running:
            one.join(max(0.0, deadline - time.monotonic()))
            if one.is_alive():
                log.error("listener_process_killed", killed_pid=one.pid)
                one.kill()
                one.join()


def _serve_until_orphaned(serve: Callable[[Settings], None], settings: Settings) -> None:
    """Serve; a process whose parent was killed stops as if told to."""
    parent = parent_process()
    if parent is not None:

        def watch() -> None:
            parent.join()
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=watch, name="parent", daemon=True).start()
    serve(settings)


def _require_free(host: str, port: int) -> None:
    """Refuse a port that is taken: sharing it, we would get some of its connections only."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = errno.errorcode.get(error.errno or 0, "unknown")
            raise ConfigurationError(
                f"Cannot listen on {host}:{port} ({reason}): change FIRSTREAD_DICOM_HOST or "
                "FIRSTREAD_DICOM_PORT, or stop what listens there"
            ) from error
