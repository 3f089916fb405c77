"""The door for whoever watches: where it opens, what it answers, and that it cannot be held up."""

import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Event
from typing import Any

import pytest

from common.archive import Archive
from common.errors import ConfigurationError
from common.metrics_server import SERVICES, MetricsServer
from common.readiness import Check, archive_check, broker_check
from common.settings import Settings


def free_ports() -> int:
    """Find a port with the next few free behind it."""
    while True:
        with ExitStack() as held:
            first = held.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            if port > 64000:
                continue
            try:
                for offset in range(1, 12):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port + offset))
            except OSError:
                continue
            return port


@pytest.fixture
def settings() -> Settings:
    return Settings.model_validate({"metrics_port": free_ports()})


@contextmanager
def serving(settings: Settings, service: str = "listener", **parts: Any) -> Iterator[MetricsServer]:  # noqa: ANN401
    server = MetricsServer(settings, service, **parts).start()
    try:
        yield server
    finally:
        server.stop()


def get(server: MetricsServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_without_a_port_nothing_is_served() -> None:
    server = MetricsServer(Settings.model_validate({}), "listener").start()
    assert server.port is None
    server.stop()


def test_each_service_has_its_port_and_a_second_process_the_next_free_one(
    settings: Settings,
) -> None:
    assert settings.metrics_port is not None
    with ExitStack() as running:
        ports = [running.enter_context(serving(settings, name)).port for name in SERVICES]
        second = running.enter_context(serving(settings, "worker"))
        assert ports == [settings.metrics_port + offset for offset in range(4)]
        assert second.port == settings.metrics_port + 5
        assert "firstread_build_info{" in get(second, "/metrics")[1]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "prometheus.example"])  # noqa: S104
def test_an_address_beyond_loopback_must_be_asked_for_twice(host: str) -> None:
    values: dict[str, Any] = {"metrics_port": free_ports(), "metrics_host": host}
    with pytest.raises(ConfigurationError, match="FIRSTREAD_METRICS_BEYOND_LOOPBACK"):
        MetricsServer(Settings.model_validate(values), "listener")


def test_an_address_beyond_loopback_is_served_when_asked_for_twice() -> None:
    values = {
        "metrics_port": free_ports(),
        "metrics_host": "0.0.0.0",  # noqa: S104
        "metrics_beyond_loopback": True,
    }
    with serving(Settings.model_validate(values)) as server:
        assert get(server, "/healthz")[0] == 200


def test_health_names_the_loop_that_does_not_move(settings: Settings) -> None:
    moves = {"accept": True}
    with serving(settings, alive={"accept": lambda: moves["accept"]}) as server:
        assert get(server, "/healthz") == (200, "accept: ok\n")
        moves["accept"] = False
        assert get(server, "/healthz") == (503, "accept: does not move\n")
        assert get(server, "/elsewhere")[0] == 404


def test_readiness_names_what_is_missing_and_asks_once_a_second_at_most(
    settings: Settings,
) -> None:
    asked = []

    def ask() -> str:
        asked.append(time.monotonic())
        return "is full"

    with serving(settings, ready=[Check("archive", ask, fresh_s=60)]) as server:
        for _ in range(5):
            assert get(server, "/readyz") == (503, "archive: is full\n")
    assert len(asked) == 1


def test_a_question_that_hangs_is_bounded_and_not_asked_again_meanwhile() -> None:
    ended, asked = Event(), []

    def ask() -> str:
        asked.append(1)
        ended.wait(30)
        return ""

    check = Check("archive", ask, timeout_s=0.1, fresh_s=0)
    began = time.monotonic()
    assert [check.problem() for _ in range(3)] == ["no answer in 0.1 s"] * 3
    assert time.monotonic() - began < 5
    assert asked == [1]
    ended.set()
    deadline = time.monotonic() + 10
    while check.problem() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert check.problem() == ""


def test_a_check_tells_no_secret() -> None:
    problem = broker_check("redis://:s3cret@127.0.0.1:1/0").problem()
    assert problem == "does not answer (ConnectionError)"


def test_an_archive_that_is_gone_is_not_ready(tmp_path: Any) -> None:  # noqa: ANN401
    archive = Archive(tmp_path / "archive")
    archive.prepare()
    assert archive_check(archive).problem() == ""
    assert list(archive.root.glob(".ready*")) == []
    assert "reserve" in archive_check(archive, 1 << 62).problem()
    assert "takes no file" in archive_check(Archive(tmp_path / "gone")).problem()


def test_silent_connections_do_not_keep_others_from_being_answered(settings: Settings) -> None:
    with serving(settings) as server, ExitStack() as held:
        for _ in range(12):
            held.enter_context(socket.create_connection(("127.0.0.1", server.port or 0), 5))
        assert get(server, "/healthz")[0] == 200
