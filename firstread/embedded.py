"""The embedded servers of one FIRSTREAD_HOME: who may reach them, and where they are written down.

HOME/postgres/             data of Postgres; the one thing here besides the archive to back up
HOME/run/credentials.json  passwords (0600); lost, they are made anew at the next start
HOME/run/endpoints.json    addresses for the owner's commands (0600); there while the servers run
HOME/run/SERVICE.url       the database's address for one service's own login (0600), likewise
HOME/run/postgres, redis/  their sockets, in folders that only their account can enter
"""

import hashlib
import json
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from platformdirs import user_runtime_path

from common.audit.key import read_key
from common.errors import ConfigurationError
from common.settings import Settings
from firstread.accounts import let_pass, server_account
from firstread.children import Child
from firstread.logins import GROUPS, OWNER, address_file, derived, login
from firstread.postgres_server import DATABASE, PostgresServer
from firstread.redis_server import RedisServer

SOCKET_PATH_BYTES = 107  # sun_path of unix(7) is 108 with its closing zero
LONGEST_SOCKET = "/postgres/.s.PGSQL.5432.lock"


class Credentials(NamedTuple):
    """Passwords of the embedded servers."""

    superuser_password: str
    database_password: str
    service_password: str  # what each service's own is derived from
    broker_password: str


class EmbeddedServers:
    """Postgres and Redis for one machine; each only where no address is configured for it."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self.settings = settings
        self.say = say
        self.wants_database = settings.database_url is None
        self.wants_broker = settings.broker_url is None
        self.run_folder = settings.endpoints_file.parent
        self.postgres: PostgresServer | None = None
        self.redis: RedisServer | None = None

    @property
    def children(self) -> list[Child]:
        """The servers' processes, in the order in which they start."""
        return [server.child for server in (self.postgres, self.redis) if server is not None]

    def start(self) -> None:
        """Start what is wanted from what is there and write ``endpoints.json``.

        The caller holds the lock of this HOME.

        Raises:
            OperatorError: a server does not come up.
        """
        read_key(self.settings)  # made before the services ask for it, all at once
        if not (self.wants_database or self.wants_broker):
            self.settings.endpoints_file.unlink(missing_ok=True)
            return
        account = server_account()
        mode = 0o700 if account is None else 0o711  # the servers' account must pass through
        for folder in (self.settings.home, self.run_folder):
            folder.mkdir(mode=mode, parents=True, exist_ok=True)
            folder.chmod(mode)
        if account is not None:
            let_pass(self.run_folder, self.say)
        credentials, made = self._credentials()
        sockets = socket_folder(self.run_folder, account)
        logs = self.settings.home / "logs"
        endpoints = {}
        if self.wants_database:
            data = self.settings.home.resolve() / "postgres"
            self.postgres = PostgresServer(
                data, sockets / "postgres", logs / "postgres.log", account, self.say
            )
            self.postgres.prepare(credentials.superuser_password, password_is_new=made)
            self.postgres.child.start()
            endpoints["database_url"] = self._database_url(OWNER, credentials.database_password)
            for service in GROUPS:
                password = derived(credentials.service_password, login(service))
                write_private(
                    address_file(self.run_folder, service),
                    self._database_url(login(service), password),
                )
        if self.wants_broker:
            self.redis = RedisServer(sockets / "redis", logs / "redis.log", account, self.say)
            self.redis.prepare(credentials.broker_password)
            self.redis.child.start()
            endpoints["broker_url"] = (
                f"unix://:{credentials.broker_password}@{_quoted(self.redis.socket)}"
            )
        if self.postgres is not None:
            self.postgres.open_database(
                credentials.superuser_password,
                credentials.database_password,
                credentials.service_password,
            )
        if self.redis is not None:
            self.redis.wait(credentials.broker_password)
        write_private(self.settings.endpoints_file, json.dumps(endpoints))

    def forget(self) -> None:
        """Take the addresses away once the servers are down."""
        self.settings.endpoints_file.unlink(missing_ok=True)
        for service in GROUPS:
            address_file(self.run_folder, service).unlink(missing_ok=True)

    def _database_url(self, user: str, password: str) -> str:
        if self.postgres is None:
            raise ConfigurationError("there is no embedded database")
        where = _quoted(self.postgres.sockets)
        return f"postgresql+psycopg://{user}:{password}@/{DATABASE}?host={where}"

    def _credentials(self) -> tuple[Credentials, bool]:
        path = self.run_folder / "credentials.json"
        try:
            return Credentials(**json.loads(path.read_text())), False
        except (FileNotFoundError, ValueError, TypeError):
            made = Credentials(*(secrets.token_hex(24) for _ in Credentials._fields))
            write_private(path, json.dumps(made._asdict()))
            return made, True


def write_private(path: Path, text: str) -> None:
    """Write a file, whole or not at all, that only its owner can read."""
    replacement = path.with_name(path.name + ".new")
    replacement.unlink(missing_ok=True)
    descriptor = os.open(replacement, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    replacement.replace(path)


def socket_folder(run_folder: Path, account: str | None) -> Path:
    """Choose where the sockets lie: beside the rest, or where the path is short enough.

    Raises:
        ConfigurationError: somebody else has put something in the short place.
    """
    run_folder = run_folder.resolve()
    if len(os.fsencode(f"{run_folder}{LONGEST_SOCKET}")) <= SOCKET_PATH_BYTES:
        return run_folder
    base = Path("/run") if os.geteuid() == 0 else user_runtime_path()
    name = f"firstread-{hashlib.sha256(os.fsencode(run_folder)).hexdigest()[:12]}"
    if not os.access(base, os.W_OK):
        base = Path("/tmp")  # noqa: S108 - the folder below is checked for its owner and mode
    short = base / name
    mode = 0o700 if account is None else 0o711
    short.mkdir(mode=mode, exist_ok=True)
    found = short.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise ConfigurationError(f"{short} is not ours: remove it, or shorten FIRSTREAD_HOME")
    short.chmod(mode)
    return short


def _quoted(path: Path) -> str:
    """Spell a path inside a URL."""
    return quote(str(path))
