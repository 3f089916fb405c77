"""compose.yaml without a container engine: is it whole, and does each service's command work."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from sqlalchemy import make_url

from common.settings import Settings
from dashboard.address import page_answers
from firstread.services import echo
from tests.conftest import REPOSITORY
from tests.e2e.running import free_port
from tests.unit.common.test_metrics_server import free_ports
from tests.waiting import eventually

SERVICES = ("listener", "worker", "beat", "dashboard")
HOPS = (
    "received_queued", "queued_claimed", "claimed_decoded", "decoded_scored", "scored_committed",
    "received_committed",
)  # fmt: skip
SECRETS = {
    "POSTGRES_PASSWORD": "not-a-secret-1",
    "REDIS_PASSWORD": "not-a-secret-2",
    "LISTENER_PASSWORD": "not-a-secret-3",
    "WORKER_PASSWORD": "not-a-secret-4",
    "BEAT_PASSWORD": "not-a-secret-5",
    "DASHBOARD_PASSWORD": "not-a-secret-6",
    "FIRSTREAD_DICOM_PEERS": "*@127.0.0.1",
}

DENIED = (
    ("dashboard", "UPDATE analysis SET outcome = 'not_flagged'"),
    ("dashboard", "UPDATE worklist_item SET probability = 0"),
    ("listener", "UPDATE analysis SET state = 'done'"),
    ("worker", "UPDATE study SET accession_number = ''"),
    ("beat", "INSERT INTO reading (study_id, state) VALUES (1, 'read')"),
    *((name, "DELETE FROM audit_event") for name in SERVICES),
    *((name, "CREATE TABLE own (id int)") for name in SERVICES),
    *((name, "ALTER ROLE firstread NOLOGIN") for name in SERVICES),
)


def config(**variables: str) -> subprocess.CompletedProcess[str]:
    """Let docker-compose read the file."""
    if shutil.which("docker-compose") is None:
        pytest.fail("docker-compose is missing: make system, or apt-get install docker-compose")
    return subprocess.run(
        ["docker-compose", "--file", str(REPOSITORY / "compose.yaml"), "config"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **variables},
        cwd="/",
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """Give the services as docker-compose understands them."""
    result = config(**SECRETS)
    assert result.returncode == 0, result.stderr
    return yaml.safe_load(result.stdout)["services"]


@pytest.mark.system
@pytest.mark.parametrize("missing", SECRETS)
def test_no_secret_has_a_default(missing: str) -> None:
    result = config(**{name: value for name, value in SECRETS.items() if name != missing})
    assert result.returncode != 0
    assert missing in result.stderr


@pytest.mark.system
def test_every_service_is_there_and_only_the_listener_is_open_to_others(
    services: dict[str, Any],
) -> None:
    assert set(services) >= {
        "postgres", "redis", "migrate", "listener", "worker", "beat", "dashboard",
    }  # fmt: skip
    published = {
        name: [str(port) for port in service["ports"]]
        for name, service in services.items()
        if service.get("ports")
    }
    assert set(published) == {"listener", "postgres"}
    assert all(port.startswith("127.0.0.1:") for port in published["postgres"])
    for name in ("listener", "worker", "beat", "dashboard"):
        assert services[name]["depends_on"]["migrate"] == {
            "condition": "service_completed_successfully"
        }
    assert services["dashboard"]["network_mode"] == "host"
    assert services["dashboard"]["environment"]["FIRSTREAD_DASHBOARD_HOST"] == "127.0.0.1"


@pytest.mark.system
def test_each_service_knows_its_own_password_and_no_other(services: dict[str, Any]) -> None:
    for name in (*SERVICES, "worker-gpu"):
        told = json.dumps(services[name]["environment"])
        owns = "WORKER" if name == "worker-gpu" else name.upper()
        known = {key for key in SECRETS if key.endswith("_PASSWORD") and SECRETS[key] in told}
        assert known == {f"{owns}_PASSWORD", *(("REDIS_PASSWORD",) if name != "dashboard" else ())}


class Servers:
    """A Postgres and a Redis that listen on loopback, in the place of the containers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.postgres_port, self.redis_port = free_port(), free_port()
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start both with the secrets of the file."""
        from firstread.accounts import own_folder, server_account
        from firstread.postgres_server import binaries
        from firstread.redis_server import redis_program

        account = server_account()
        data = self.folder / "postgres"
        own_folder(data, account)
        password = self.folder / "password"
        password.write_text(SECRETS["POSTGRES_PASSWORD"])
        password.chmod(0o644)
        subprocess.run(
            [
                binaries() / "initdb", f"--pgdata={data}", "--username=firstread",
                f"--pwfile={password}", "--auth=scram-sha-256", "--no-locale", "--encoding=UTF8",
            ],
            check=True, capture_output=True, cwd="/", user=account, group=account,
        )  # fmt: skip
        postgres = [
            str(binaries() / "postgres"), "-D", str(data), "-p", str(self.postgres_port),
            "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
        ]  # fmt: skip
        redis = [
            str(redis_program()), "--bind", "127.0.0.1", "--port", str(self.redis_port),
            "--save", "", "--requirepass", SECRETS["REDIS_PASSWORD"], "--dir", str(self.folder),
        ]  # fmt: skip
        log = (self.folder / "servers.log").open("ab")
        self.processes.append(
            subprocess.Popen(
                postgres,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                user=account,
                group=account,
            )
        )
        self.processes.append(subprocess.Popen(redis, stdout=log, stderr=subprocess.STDOUT))
        log.close()
        self._make_database()

    def _make_database(self) -> None:
        def connect() -> psycopg.Connection | None:
            try:
                return psycopg.connect(
                    host="127.0.0.1", port=self.postgres_port, user="firstread",
                    password=SECRETS["POSTGRES_PASSWORD"], dbname="postgres", autocommit=True,
                )  # fmt: skip
            except psycopg.OperationalError:
                return None

        deadline = time.monotonic() + 30
        while (connection := connect()) is None:
            assert time.monotonic() < deadline, (self.folder / "servers.log").read_text()
            time.sleep(0.1)
        connection.execute("CREATE DATABASE firstread")
        connection.close()

    def stop(self) -> None:
        """Stop both."""
        self.processes[0].send_signal(signal.SIGINT)
        self.processes[1].terminate()
        for process in self.processes:
            process.wait(30)


class Deployment:
    """The services of the file, each with its exact command and environment, as processes.

    Only what a container's network and volumes would give is written anew: host names, published
    ports, the volume's folder.
    """

    def __init__(self, services: dict[str, Any], servers: Servers, home: Path) -> None:
        self.services, self.servers, self.home = services, servers, home
        self.dicom_port, self.dashboard_port = free_port(), free_port()
        self.metrics_port = free_ports()

    def variables(self, name: str) -> dict[str, str]:
        """Give a service's environment with the container's surroundings replaced."""
        environment = {key: str(value) for key, value in self.services[name]["environment"].items()}
        for host in ("@postgres:5432/", "@127.0.0.1:15432/"):
            environment["FIRSTREAD_DATABASE_URL"] = environment["FIRSTREAD_DATABASE_URL"].replace(
                host, f"@127.0.0.1:{self.servers.postgres_port}/"
            )
        if "FIRSTREAD_BROKER_URL" in environment:
            environment["FIRSTREAD_BROKER_URL"] = environment["FIRSTREAD_BROKER_URL"].replace(
                "@redis:6379/", f"@127.0.0.1:{self.servers.redis_port}/"
            )
        assert environment["FIRSTREAD_HOME"] == "/var/lib/firstread"
        environment["FIRSTREAD_HOME"] = str(self.home)
        environment["FIRSTREAD_ARCHIVE_RESERVE_BYTES"] = "0"  # the test machine's disk, not ours
        environment["FIRSTREAD_DICOM_PORT"] = str(self.dicom_port)
        environment["FIRSTREAD_DASHBOARD_PORT"] = str(self.dashboard_port)
        environment["FIRSTREAD_METRICS_PORT"] = str(self.metrics_port)
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), **environment}

    def command(self, name: str) -> list[str]:
        """Give a service's command behind the image's entry point."""
        dockerfile = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
        assert 'ENTRYPOINT ["firstread"]' in dockerfile
        return [sys.executable, "-m", "firstread", *self.services[name]["command"]]

    def run(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a service to its end, or another command in its place."""
        command = [*self.command(name)[:3], *arguments] if arguments else self.command(name)
        return subprocess.run(
            command, env=self.variables(name), cwd=REPOSITORY, capture_output=True, text=True,
            timeout=240, check=False,
        )  # fmt: skip

    def connect(self, name: str) -> psycopg.Connection:
        """Connect to the database as a service does."""
        address = make_url(self.variables(name)["FIRSTREAD_DATABASE_URL"])
        plain = address.set(drivername="postgresql").render_as_string(hide_password=False)
        return psycopg.connect(plain, autocommit=True)

    def is_healthy(self, name: str) -> bool:
        """Run a service's health check as the container engine would."""
        kind, program, *arguments = self.services[name]["healthcheck"]["test"]
        assert (kind, program) == ("CMD", "python")
        done = subprocess.run(
            [sys.executable, *arguments], env=self.variables(name), capture_output=True,
            timeout=30, check=False,
        )  # fmt: skip
        return done.returncode == 0

    def metrics(self, name: str) -> dict[str, float]:
        """Scrape a service; gives each series by its name and labels."""
        port = self.metrics_port + SERVICES.index(name)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}

    def start(self, name: str, stack: ExitStack) -> subprocess.Popen[bytes]:
        """Start a service that stays, until the stack of contexts closes."""
        log = stack.enter_context((self.home / f"{name}.log").open("ab"))
        process = subprocess.Popen(
            self.command(name), env=self.variables(name), cwd=REPOSITORY,
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        stack.callback(_end, process)
        return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


@pytest.fixture
def deployment(services: dict[str, Any]) -> Iterator[Deployment]:
    """Start the servers in the place of their containers."""
    folder = Path(tempfile.mkdtemp(prefix="firstread-compose-", dir="/tmp"))
    folder.chmod(0o711)
    home = folder / "home"
    home.mkdir()
    servers = Servers(folder)
    servers.start()
    yield Deployment(services, servers, home)
    servers.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.system
def test_the_services_of_the_file_carry_studies_to_their_results(deployment: Deployment) -> None:
    migrated = deployment.run("migrate")
    assert migrated.returncode == 0, migrated.stderr
    with ExitStack() as stack:
        assert not any(deployment.is_healthy(name) for name in SERVICES)
        for name in SERVICES:
            deployment.start(name, stack)
        settings = Settings.model_validate(
            {"dicom_port": deployment.dicom_port, "dashboard_port": deployment.dashboard_port}
        )
        assert eventually(lambda: echo(settings), 120), logs(deployment)
        assert eventually(lambda: page_answers(settings), 120), logs(deployment)
        for name in SERVICES:
            assert eventually(lambda name=name: deployment.is_healthy(name), 120), logs(deployment)
        with deployment.connect("migrate") as watching:
            used = watching.execute(
                "SELECT DISTINCT usename FROM pg_stat_activity WHERE application_name = 'firstread'"
            ).fetchall()
        # The dashboard connects when somebody opens a page.
        assert {name for (name,) in used} == {f"firstread_{each}_service" for each in SERVICES[:3]}
        sent = deployment.run(
            "beat", "simulate", "--plain", "--count", "3", "--rate", "100",
            "--to", f"FIRSTREAD@127.0.0.1:{deployment.dicom_port}",
        )  # fmt: skip
        assert sent.returncode == 0, sent.stderr

        def analysed() -> int:
            status = deployment.run("beat", "status", "--json")
            return json.loads(status.stdout)["analyses"]["done"]

        assert eventually(lambda: analysed() == 3, 120, pause_s=1), logs(deployment)
        rows = json.loads(deployment.run("dashboard", "worklist", "--json").stdout)
        assert len(rows) == 3
        assert all(row["probability"] is not None for row in rows)
        for name, statement in DENIED:
            refused = pytest.raises(psycopg.errors.InsufficientPrivilege)
            with deployment.connect(name) as login, refused:
                login.execute(statement.encode())
        again = deployment.run("migrate")  # as each `up` does, while everything works
        assert again.returncode == 0, again.stderr
        listener, worker = deployment.metrics("listener"), deployment.metrics("worker")
        assert listener['firstread_objects_received_total{outcome="stored"}'] == 3
        assert listener["firstread_received_bytes_total"] > 0
        assert listener["firstread_archive_free_bytes"] > 0
        assert worker['firstread_analyses_ended_total{end="done"}'] == 3
        for hop in HOPS:
            of_both = (each.get(f'firstread_hop_seconds_count{{hop="{hop}"}}', 0) for each in (
                listener, worker,
            ))  # fmt: skip
            assert sum(of_both) == 3, hop
        assert worker["firstread_batch_images_sum"] == 3
        assert eventually(
            lambda: (
                deployment.metrics("beat")["firstread_ledger_last_result_timestamp_seconds"] > 0
            ),
            30,
        )
        beat = deployment.metrics("beat")
        assert beat['firstread_ledger_items{state="unsettled"}'] in (0, 1, 2, 3)
        assert beat["firstread_upkeep_last_round_timestamp_seconds"] > time.time() - 60
        stopped = deployment.servers.processes[1]
        stopped.send_signal(signal.SIGSTOP)  # Redis hangs: who needs it says so, the rest goes on
        try:
            assert eventually(lambda: not deployment.is_healthy("worker"), 30)
            assert deployment.is_healthy("listener")
        finally:
            stopped.send_signal(signal.SIGCONT)
        assert eventually(lambda: deployment.is_healthy("worker"), 60), logs(deployment)


def logs(deployment: Deployment) -> str:
    """Give what the services logged."""
    return "\n".join(path.read_text() for path in deployment.home.glob("*.log"))
