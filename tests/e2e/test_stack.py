"""The stack on one machine: nobody else gets in, nothing stays behind, what died comes back."""

import os
import pwd
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dashboard.address import page_answers
from firstread.services import echo
from tests.e2e.running import RunningStack
from tests.waiting import eventually


@pytest.fixture(scope="module")
def stack() -> Iterator[RunningStack]:
    """Run one stack for the tests that only look at it."""
    with RunningStack() as running:
        yield running.start().wait_up()


def test_every_door_is_open_when_the_stack_says_that_it_is_up(stack: RunningStack) -> None:
    assert echo(stack.settings)
    assert page_answers(stack.settings)


def test_the_doctor_finds_servers_and_durability_well(stack: RunningStack) -> None:
    told = stack.run("doctor").stdout
    lines = {line[8:].split(":")[0]: line[:8].strip() for line in told.splitlines()}
    wanted = ("database", "migrations", "durability", "clock", "broker", "archive", "listener")
    assert {name: lines.get(name) for name in wanted} == dict.fromkeys(wanted, "OK"), told


def test_a_second_stack_on_the_same_home_is_refused(stack: RunningStack) -> None:
    result = stack.run("up")
    assert result.returncode == 2
    assert "already runs" in result.stderr
    assert "FIRSTREAD_HOME" in result.stderr


def test_a_taken_port_is_named_by_its_setting(stack: RunningStack) -> None:
    variables = {"FIRSTREAD_DICOM_PORT": str(stack.dicom_port)}
    with RunningStack(**variables) as other:
        result = other.run("up")
        assert result.returncode == 2
        assert "FIRSTREAD_DICOM_PORT" in result.stderr
        assert other.processes() == []


def test_two_stacks_run_side_by_side(stack: RunningStack) -> None:
    with RunningStack() as other:
        other.start().wait_up()
        for one in (stack, other):
            assert echo(one.settings)
            assert one.run("status", "--json").returncode == 0
        assert other.stop(signal.SIGHUP) == 0  # its terminal is closed
        assert other.processes() == []
    assert echo(stack.settings)


def test_secrets_and_sockets_are_for_their_owner_alone(stack: RunningStack) -> None:
    run = stack.home / "run"
    for name in ("endpoints.json", "credentials.json"):
        assert stat.S_IMODE((run / name).stat().st_mode) == 0o600
    for name in ("postgres", "redis"):
        assert stat.S_IMODE((run / name).stat().st_mode) == 0o700
    assert stat.S_IMODE((stack.home / "archive").stat().st_mode) == 0o700
    assert stat.S_IMODE((stack.home / "logs").stat().st_mode) == 0o700


CONNECT = """
import socket, sys
for path in sys.argv[1:]:
    try:
        socket.socket(socket.AF_UNIX).connect(path)
        print("in")
    except PermissionError:
        print("out")
"""


def sockets(stack: RunningStack) -> list[str]:
    """Name the servers' doors."""
    run = stack.home / "run"
    return [str(run / "postgres" / ".s.PGSQL.5432"), str(run / "redis" / "redis.sock")]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")
def test_another_account_of_the_machine_gets_nowhere(stack: RunningStack) -> None:
    python = "/usr/bin/python3"  # ours may lie where nobody else can read
    if not Path(python).exists():
        pytest.skip("the system has no Python of its own")
    nobody = pwd.getpwnam("nobody")
    result = subprocess.run(
        [python, "-c", CONNECT, *sockets(stack)],
        capture_output=True, text=True, user=nobody.pw_uid, group=nobody.pw_gid,
        extra_groups=[], cwd="/", check=True,
    )  # fmt: skip
    assert result.stdout.split() == ["out", "out"]
    own = subprocess.run(
        [sys.executable, "-c", CONNECT, *sockets(stack)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert own.stdout.split() == ["in", "in"]


def test_the_servers_ask_even_their_own_account_for_a_password(stack: RunningStack) -> None:
    import psycopg
    import redis

    postgres, socket = sockets(stack)
    for user in ("postgres", "firstread"):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(host=str(Path(postgres).parent), user=user, dbname="firstread")
    client = redis.Redis(unix_socket_path=socket)
    with pytest.raises(redis.AuthenticationError):
        client.ping()
    client.close()


def test_a_service_that_dies_is_started_again_and_said_so(stack: RunningStack) -> None:
    first = stack.service("listen")
    first.kill()
    assert eventually(lambda: "listener started again" in stack.told(), 30), stack.told()
    assert eventually(lambda: echo(stack.settings), 60)
    assert "listener ended (signal 9)" in stack.told()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_stack_leaves_nothing_running(number: signal.Signals) -> None:
    with RunningStack() as running:
        running.start().wait_up()
        assert len(running.processes()) >= 7
        assert running.stop(number) == 0, running.told()
        assert running.processes() == []
        assert not (running.home / "run" / "endpoints.json").exists()


def test_a_killed_stack_takes_its_children_along_and_the_next_one_starts() -> None:
    with RunningStack() as running:
        running.start().wait_up()
        running.kill()
        assert eventually(lambda: running.processes() == [], 30), running.processes()
        running.start().wait_up()
        assert echo(running.settings)
        assert running.stop() == 0, running.told()


def test_a_stack_stopped_while_it_starts_leaves_nothing_running() -> None:
    with RunningStack() as running:
        running.start()
        assert eventually(lambda: "postgres ready" in running.told(), 60)
        assert running.stop() == 0, running.told()
        assert running.processes() == []
