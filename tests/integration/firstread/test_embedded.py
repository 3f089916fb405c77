"""The embedded servers in odd circumstances: long paths, lost passwords, half-made data."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from sqlalchemy import text

from common.database import make_engine
from common.errors import ConfigurationError
from common.settings import Settings
from firstread.embedded import SOCKET_PATH_BYTES, EmbeddedServers


class Said(list[str]):
    """Keep what would have been told to a person."""


@pytest.fixture
def home() -> Iterator[Path]:
    """Give a home that the servers' own account can reach."""
    folder = Path(tempfile.mkdtemp(prefix="firstread-home-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def start(home: Path) -> EmbeddedServers:
    """Start the servers of a home."""
    servers = EmbeddedServers(Settings.model_validate({"home": home}), Said().append)
    servers.start()
    return servers


def stop(servers: EmbeddedServers) -> None:
    """Stop them again, cleanly."""
    for child in reversed(servers.children):
        child.ask_to_stop()
        assert child.stop(), child.name


def ask(servers: EmbeddedServers, statement: str) -> object:
    """Ask the database as the services would."""
    engine = make_engine(servers.settings.database_address(), pool_size=1)
    with engine.begin() as connection:
        result = connection.execute(text(statement))
        answer = result.scalar_one() if result.returns_rows else None
    engine.dispose()
    return answer


def test_what_was_written_is_there_after_a_restart_even_with_the_passwords_lost(
    home: Path,
) -> None:
    servers = start(home)
    ask(servers, "CREATE TABLE kept AS SELECT 7 AS number")
    assert ask(servers, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
    before = (home / "run" / "credentials.json").read_text()
    stop(servers)
    (home / "run" / "credentials.json").unlink()
    servers = start(home)
    try:
        assert (home / "run" / "credentials.json").read_text() != before
        assert ask(servers, "SELECT number FROM kept") == 7
    finally:
        stop(servers)


def test_a_home_too_deep_for_a_socket_works(home: Path) -> None:
    deep = home / ("x" * 60) / ("y" * 60)
    servers = start(deep)
    try:
        assert ask(servers, "SELECT 1") == 1
        assert servers.postgres is not None
        assert servers.redis is not None
        assert len(str(servers.postgres.sockets / ".s.PGSQL.5432")) <= SOCKET_PATH_BYTES
        assert not servers.redis.socket.is_relative_to(deep)
    finally:
        stop(servers)
        assert servers.redis is not None
        shutil.rmtree(servers.redis.sockets.parent)


def test_a_lock_left_by_a_dead_server_whose_number_is_taken_again_is_no_obstacle(
    home: Path,
) -> None:
    stop(start(home))
    lines = ["1", str(home / "postgres"), "1700000000", "5432", "", "", "", "ready"]
    (home / "postgres" / "postmaster.pid").write_text("\n".join(lines) + "\n")
    servers = start(home)
    try:
        assert ask(servers, "SELECT 1") == 1
    finally:
        stop(servers)


def test_a_backend_that_outlived_its_postmaster_is_gone_before_the_next_server_starts(
    home: Path,
) -> None:
    servers = start(home)
    engine = make_engine(servers.settings.database_address(), pool_size=1)
    with engine.connect() as connection:
        number = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        backend = psutil.Process(number)
        backend.suspend()  # as one that computes, it does not see its postmaster's death
        assert servers.postgres is not None
        assert servers.postgres.child.process is not None
        servers.postgres.child.process.kill()
        servers.postgres.child.process.wait()
        assert backend.is_running()
        assert servers.redis is not None
        servers.redis.child.ask_to_stop()
        assert servers.redis.child.stop()
        again = start(home)
        try:
            assert not backend.is_running()
            assert ask(again, "SELECT 1") == 1
        finally:
            stop(again)
        connection.invalidate()
    engine.dispose()


def test_a_half_made_data_folder_is_made_anew(home: Path) -> None:
    half = home / "postgres.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    servers = start(home)
    try:
        assert ask(servers, "SELECT 1") == 1
        assert not half.exists()
    finally:
        stop(servers)


def test_data_of_another_postgres_is_refused_and_left_alone(home: Path) -> None:
    data = home / "postgres"
    data.mkdir()
    (data / "PG_VERSION").write_text("16\n")
    with pytest.raises(ConfigurationError, match=r"Postgres 16.*operations"):
        start(home)
    assert [path.name for path in data.iterdir()] == ["PG_VERSION"]


def test_only_the_address_that_is_not_configured_is_embedded(home: Path, broker_url: str) -> None:
    settings = Settings.model_validate({"home": home, "broker_url": broker_url})
    servers = EmbeddedServers(settings, Said().append)
    servers.start()
    try:
        assert servers.redis is None
        assert set(json.loads(settings.endpoints_file.read_text())) == {"database_url"}
        assert settings.broker_address() == broker_url
    finally:
        stop(servers)


def test_a_wrong_password_is_refused(home: Path) -> None:
    servers = start(home)
    try:
        assert servers.postgres is not None
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(
                host=str(servers.postgres.sockets),
                user="firstread",
                password="guess",  # noqa: S106
                dbname="firstread",
            )
    finally:
        stop(servers)
