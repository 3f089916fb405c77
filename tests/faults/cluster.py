"""The stack of fault cases on hosts of its own: listeners, workers, Postgres, Redis, a scanner.

The archive is a shared mount. The tests read the truth through the servers' Unix sockets, which no
network fault reaches.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import psutil
import redis
from sqlalchemy import text

from common.states import AnalysisState
from tests.conftest import REPOSITORY
from tests.faults.namespaces import Network
from tests.faults.objects import Objects
from tests.faults.process import Process
from tests.faults.relay import RelayProcess
from tests.faults.sending import Sending
from tests.faults.stack import BEAT, LISTEN, WORK, Stack
from tests.own_broker import Broker

HOSTS = ("sender", "listener1", "listener2", "worker1", "worker2", "database", "broker", "relay")
DICOM_PORT, POSTGRES_PORT, REDIS_PORT = 11112, 5432, 6379
PASSWORD = "faults"  # noqa: S105 - of servers that live for one test


class GuardedBroker(Broker):
    """A Redis that asks for a password, as one that listens on a network must."""

    def start(self) -> None:
        """Start it, empty, and set the password."""
        super().start()
        with redis.Redis(unix_socket_path=str(self.folder / "redis.sock")) as client:
            client.config_set("requirepass", PASSWORD)


class Cluster(Stack):
    """One site of several machines. Entering it starts the servers and upkeep; the rest is told."""

    def __init__(
        self, *, load: str = "load_number", beat_on: str = "worker1", **settings: str
    ) -> None:
        """Describe it.

        Args:
            load: The workers' loader, by its name in ``tests.faults.parts``.
            beat_on: The host of upkeep.
            settings: FIRSTREAD_ settings of every service, in lower case.
        """
        self.network = Network(*HOSTS)
        at, prefix = self.network.address, self.network.command
        variables: dict[str, str] = {
            "FIRSTREAD_DICOM_PEERS": f"*@{at('sender')}/24",
            "FIRSTREAD_DICOM_PORT": str(DICOM_PORT),
            "FIRSTREAD_DICOM_ACSE_TIMEOUT_S": "5",
            "FIRSTREAD_DICOM_DIMSE_TIMEOUT_S": "5",
            "FIRSTREAD_DICOM_NETWORK_TIMEOUT_S": "8",
            "FIRSTREAD_BROKER_URL": f"redis://:{PASSWORD}@{at('broker')}:{REDIS_PORT}/0",
            **{f"FIRSTREAD_{name.upper()}": value for name, value in settings.items()},
        }
        super().__init__(
            listeners=0,
            workers=0,
            load=load,
            prefixes={
                "postgres": prefix("database"),
                "redis": prefix("broker"),
                "beat": prefix(beat_on),
                "sender": prefix("sender"),
            },
            postgres_address=at("database"),
            redis_address=at("broker"),
            **variables,  # pyright: ignore[reportArgumentType]
        )
        self.load = load
        self.idle_threads = 0  # of the last listener, before it served anybody
        self.more_faults = self.network.faults
        self.relays: list[RelayProcess] = []
        self.redis = GuardedBroker(
            self.folder / "redis", address=at("broker"), prefix=prefix("broker")
        )
        if self.postgres.user is not None:  # only root enters a namespace; the server is not root
            account = ("--reuid", self.postgres.user, "--regid", self.postgres.user)
            drop = ["setpriv", *account, "--clear-groups"]
            self.postgres.prefix = [*prefix("database"), *drop]
            self.postgres.user = None

    def __enter__(self) -> Self:
        self.network.__enter__()
        return super().__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for relay in self.relays:
            relay.stop()
        super().__exit__(kind, error, trace)
        self.network.remove()

    def listen(self, host: str, **settings: str) -> Process:
        """Start a listener on a host and wait until it listens."""
        own = {"dicom_host": self.network.address(host), **settings}
        listener = self._on(host, "listener", LISTEN, "listener_started", own)
        self.listeners.append(listener)
        self.idle_threads = psutil.Process(listener.pid).num_threads()
        return listener

    def work(self, host: str, **settings: str) -> Process:
        """Start a worker on a host and wait until it works."""
        worker = self._on(host, "worker", WORK.format(load=self.load), "worker_started", settings)
        self.workers.append(worker)
        return worker

    def beat_too(self, host: str) -> Process:
        """Start another upkeep on a host."""
        beat = self._on(host, "upkeep", BEAT, "beat_started", {})
        self.workers.append(beat)  # a service like them
        return beat

    def relay(self, to: str, port: int) -> RelayProcess:
        """Start a relay, on its own host and the same port, to a port of another host."""
        program = (sys.executable, "-m", "tests.faults.relay", str(port))
        target = (self.network.address(to), str(port))
        self.relays.append(RelayProcess(self.network.command("relay", *program, *target)))
        return self.relays[-1]

    def send_to(
        self, host: str, *, associations: int = 3, per_association: int = 4, at_least: int = 0
    ) -> Sending:
        """Begin to send from the scanner's host to a listener's, or to the relay before it."""
        self._number += 1
        return Sending(
            Objects(self.folder / f"sent-{self._number}"),
            [DICOM_PORT],
            host=self.network.address(host),
            prefix=self.network.command("sender"),
            associations=associations,
            per_association=per_association,
            at_least=at_least,
        ).start()

    @contextmanager
    def run_on(self, host: str, code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Run Python on a host, for a while; gives the process with its output."""
        command = self.network.command(host, sys.executable, "-c", code, *arguments)
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
        ) as running:
            try:
                yield running
            finally:
                running.kill()

    def ask(self, question: str) -> int:
        """Ask the database for a number, through its socket."""
        with self.engine.connect() as connection:
            return int(connection.execute(text(question)).scalar_one())

    def done(self) -> int:
        """Count the analyses that are done."""
        return self.states()[AnalysisState.DONE]

    def _on(
        self, host: str, name: str, code: str, ready_word: str, settings: dict[str, str]
    ) -> Process:
        own = {f"FIRSTREAD_{key.upper()}": value for key, value in settings.items()}
        command: Sequence[str] = [sys.executable, "-c", code]
        process = Process(
            f"the {name} of {host}",
            command,
            self.folder / "logs" / f"{name}-{host}.log",
            {**self.environment, **own},
            prefix=self.network.command(host),
            ready_word=ready_word,
        )
        process.start()
        process.wait_ready()
        return process
