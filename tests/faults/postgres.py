"""A Postgres of one case's own, to be killed with -9 and started again over the same data."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import psutil
import psycopg

from firstread.accounts import server_account
from firstread.postgres_server import PostgresServer
from tests.faults.process import Process
from tests.waiting import eventually, stretch

PASSWORD = "faults"  # noqa: S105 - of a server that lives for one test
DATABASE = "firstread"


class Postgres(Process):
    """The product's own server over a folder below /tmp, started as ``firstread up`` starts it."""

    def __init__(
        self,
        folder: Path,
        *,
        address: str = "",
        prefix: Sequence[str] = (),
        options: Sequence[str] = (),
        logs: Path | None = None,
    ) -> None:
        """Describe it.

        Args:
            folder: Where data and socket go; every account must be able to pass to it.
            address: Where it listens on TCP port 5432; "" for its Unix socket alone.
            prefix: As in Process.
            options: More of what follows ``postgres``, as ``-c fsync=off``.
            logs: The folder of its log; in ``folder`` if not given.
        """
        self.address = address
        self.sockets = folder / "postgres-run"
        self.server = PostgresServer(
            folder / "postgres",
            self.sockets,
            folder / "postgres.log",
            server_account(),
            lambda _: None,
        )
        command = [*self.server.child.command, *options]
        if address:
            command += ["-c", f"listen_addresses={address}"]
        super().__init__(
            "Postgres",
            command,
            (logs or folder / "logs") / "postgres.log",
            {"LC_ALL": "C"},
            user=self.server.account,
            prefix=prefix,
            ready_word="ready to accept connections",
        )

    def url(self, *, user: str = DATABASE, database: str = DATABASE) -> str:
        """Give the address for SQLAlchemy."""
        if self.address:
            return f"postgresql+psycopg://{user}:{PASSWORD}@{self.address}/{database}"
        return f"postgresql+psycopg://{user}:{PASSWORD}@/{database}?host={self.sockets}"

    def prepare(self) -> None:
        """Make the data folder, start the server and make our role and database."""
        self.server.prepare(PASSWORD, password_is_new=False)
        if self.address:
            with (self.server.data / "pg_hba.conf").open("a") as rules:
                rules.write("host all all 0.0.0.0/0 scram-sha-256\n")
        self.start()
        self.wait_ready()
        for statement in (
            f"CREATE ROLE {DATABASE} LOGIN PASSWORD '{PASSWORD}'",
            f"CREATE DATABASE {DATABASE} OWNER {DATABASE}",
        ):
            self.tell(statement)

    def restart(self) -> None:
        """Start it after a death, as the product does: what is left of the dead one is cleared."""
        self.server.prepare(PASSWORD, password_is_new=False)
        self.start()
        self.wait_ready()

    def tell(self, statement: str) -> None:
        """Run a statement as the superuser, through the socket."""
        with psycopg.connect(
            host=str(self.sockets),
            user="postgres",
            password=PASSWORD,
            dbname="postgres",
            autocommit=True,
        ) as connection:
            connection.execute(statement.encode())

    def kill(self) -> None:
        """SIGKILL the postmaster, and see its orphaned backends go."""
        orphans = psutil.Process(self.pid).children()
        super().kill()
        _, alive = psutil.wait_procs(orphans, 20 * stretch())
        assert not alive, f"backends outlived the postmaster: {alive}"

    def kill_backend(self) -> bool:
        """SIGKILL a backend that serves us; the server restarts itself. False if there is none."""
        for process in psutil.Process(self.pid).children():
            try:
                serves_us = f": {DATABASE} {DATABASE} " in " ".join(process.cmdline())
            except psutil.Error:
                continue
            if serves_us:
                os.kill(process.pid, signal.SIGKILL)
                assert eventually(lambda: not process.is_running(), 10)  # noqa: B023
                self.faults["SIGKILL of a Postgres backend"] += 1
                return True
        return False
