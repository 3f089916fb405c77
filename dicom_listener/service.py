"""The listener as a process: firstread listen."""

import ctypes
import gc
import signal
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from threading import Event as Flag
from typing import Any

from pynetdicom import evt
from sqlalchemy.exc import SQLAlchemyError

from common.archive import Archive
from common.database import durability_problems, make_engine, make_sessions
from common.errors import ConfigurationError, StorageUnavailableError, UnreachableError
from common.logs import configure_logs, get_logger
from common.queue import make_celery
from common.schema import check_schema
from common.settings import Settings
from dicom_listener.bell import Bell
from dicom_listener.commitment_request import CommitmentService
from dicom_listener.committing import Committers
from dicom_listener.connections import AcceptorServer, Reach
from dicom_listener.library_log import quiet_pynetdicom
from dicom_listener.peers import Admission
from dicom_listener.pressure import Pressure, queue_age_s
from dicom_listener.processes import Processes
from dicom_listener.receiving import Receiver
from dicom_listener.reception import Spool
from dicom_listener.registrar import Registrar
from dicom_listener.ringing import Ringer
from dicom_listener.same_pixels import same_pixels
from dicom_listener.tls import is_secured, server_context
from dicom_listener.watching import watched

GRACE_S = 15.0
_M_ARENA_MAX, _M_MMAP_THRESHOLD = -8, -3  # of glibc's malloc.h

log = get_logger()


class Listener:
    """Everything that listens, from the archive to the socket."""

    def __init__(self, settings: Settings, *, direct: bool = True) -> None:
        """Check what the listener stands on, and bind.

        Args:
            settings: What the site decided.
            direct: Whether C-STORE takes the direct path past pynetdicom; the two answer alike.

        Raises:
            ConfigurationError: archive, database or address cannot be used as they are.
            UnreachableError: the database does not answer.
        """
        quiet_pynetdicom()
        archive = Archive(settings.archive_path)
        self._engine = make_engine(
            settings.database_address(), pool_size=settings.dicom_max_associations
        )
        try:
            self._check_database()
            archive.prepare()
            self._spool = Spool(archive, settings.archive_reserve_bytes)
        except StorageUnavailableError as error:
            self._engine.dispose()
            raise ConfigurationError(
                f"{error}: check FIRSTREAD_ARCHIVE, {settings.archive_path}"
            ) from error
        except Exception:
            self._engine.dispose()
            raise
        self._registrar = Registrar(self._engine, settings)
        app = make_celery(settings.broker_address())
        self._ringer = Ringer(Bell(app).ring)
        sessions = make_sessions(self._engine)
        self._pressure = Pressure(settings, partial(queue_age_s, sessions))
        receiver = Receiver(
            archive=archive,
            registrar=self._registrar,
            sessions=sessions,
            settings=settings,
            same_pixels=partial(
                same_pixels,
                deadline_s=settings.decode_deadline_s,
                memory_bytes=settings.decode_memory_bytes,
            ),
            is_pressed=self._pressure.refuses,
            ring=self._ringer.ring,
        )
        reach = Reach(settings, Admission(settings), self._spool.receive, receiver.store, direct)
        handlers: list[tuple[Any, Callable[..., Any]]] = [
            (evt.EVT_C_STORE, receiver.handle_store),
            (evt.EVT_C_ECHO, receiver.handle_echo),
        ]
        self._servers: list[AcceptorServer] = []
        try:
            self._committers = Committers(sessions, archive, settings)
            commitment = CommitmentService(sessions, self._committers.begin)
            handlers.append((evt.EVT_N_ACTION, commitment.handle_action))
            for port, context in _doors(settings):
                self._servers.append(AcceptorServer(reach, handlers, port=port, tls=context))
            self._door = watched(settings, self._engine, self._moves)
        except Exception:
            for server in self._servers:
                server.server_close()
            self._spool.close()
            self._engine.dispose()
            raise

    def start(self) -> None:
        """Accept associations from now on."""
        self._door.start()
        self._pressure.start()
        self._ringer.start()
        self._committers.start()
        for server in self._servers:
            server.start()

    def _moves(self) -> bool:
        return all(server.moves() for server in self._servers)

    @property
    def handshakes_refused(self) -> Counter[str]:
        """Connections that got no association because their TLS handshake failed, by reason."""
        reasons: Counter[str] = Counter()
        for server in self._servers:
            if server.handshakes is not None:
                reasons.update(server.handshakes.refused)
        return reasons

    def stop(self, grace_s: float = GRACE_S) -> None:
        """Accept nothing new, let the objects under way end within the time, and let go."""
        with ThreadPoolExecutor(len(self._servers)) as stopping:
            ended = all(stopping.map(lambda server: server.stop(grace_s), self._servers))
        self._door.stop()
        self._committers.stop()
        self._pressure.stop()
        self._ringer.stop()
        self._spool.close()
        self._registrar.close()
        self._engine.dispose()
        log.info("listener_stopped", in_time=ended, rings_dropped=self._ringer.dropped)

    def _check_database(self) -> None:
        try:
            with self._engine.connect() as connection:
                check_schema(connection)
            with make_sessions(self._engine)() as session:
                problems = durability_problems(session)
        except SQLAlchemyError as error:
            raise UnreachableError(
                "The database does not answer: check FIRSTREAD_DATABASE_URL, or run firstread up "
                f"({type(error).__name__})"
            ) from error
        if problems:
            raise ConfigurationError(
                "The database may lose what it has acknowledged: " + "; ".join(problems)
            )


def _doors(settings: Settings) -> Iterator[tuple[int, ssl.SSLContext | None]]:
    """Give each port to listen on, and what TLS it speaks."""
    if not is_secured(settings):
        yield settings.dicom_port, None
        return
    context = server_context(settings)
    if settings.dicom_tls_port is not None:
        yield settings.dicom_port, None
    yield settings.dicom_tls_port or settings.dicom_port, context


def serve(settings: Settings) -> None:
    """Listen until SIGTERM or SIGINT, then end what is under way.

    Raises:
        ConfigurationError: archive, database or address cannot be used as they are.
        UnreachableError: the database does not answer.
    """
    if settings.dicom_processes == 1:
        serve_alone(settings)
        return
    configure_logs("listener", settings.log_level)
    Processes(settings, serve_alone).run(_told_to_stop())


def _told_to_stop() -> Flag:
    stopping = Flag()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    return stopping


def _give_memory_back() -> None:
    """Let glibc keep two heaps for all threads, not one for each, and no large pieces at all.

    It would keep what each of them had once had at a time. Python runs one thread at a time, so
    they hardly meet. Another C library has no such choice.
    """
    with suppress(AttributeError, OSError):
        choose = ctypes.CDLL(None).mallopt
        choose(_M_ARENA_MAX, 2)
        choose(_M_MMAP_THRESHOLD, 1 << 17)


def serve_alone(settings: Settings) -> None:
    """Listen as one process, be it of several; raises what ``serve`` does."""
    configure_logs("listener", settings.log_level)
    _give_memory_back()
    stopping = _told_to_stop()
    listener = Listener(settings)
    listener.start()
    gc.freeze()  # pynetdicom collects every 60 connections: let it look at those alone
    log.info(
        "listener_started",
        ae_title=settings.ae_title,
        host=settings.dicom_host,
        port=settings.dicom_port,
        tls_port=settings.dicom_tls_port,
        tls=is_secured(settings),
        peers=len(settings.peers),
    )
    stopping.wait()
    listener.stop()
