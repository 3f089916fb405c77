"""Hosts of their own on one machine: a network namespace each, joined by a switch that can fail.

Nothing here touches the machine's own network: the switch lies in a namespace too. What a run that
crashed left behind is removed at the next start.
"""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import pytest

from tests.waiting import eventually

_PREFIX = "firstread-test"
_SUBNET = "10.77.0"
_TOOLS = {"ip": "iproute2", "tc": "iproute2", "nft": "nftables", "unshare": "util-linux"}
# Entering a namespace costs some 10 ms, and so does this; a probe must not import the site.
_CONNECT = (
    "import socket, sys\n"
    "try: socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[3])).close()\n"
    "except OSError: sys.exit(1)\n"
)


class Network:
    """Hosts by name; a context manager that leaves no namespace and no process of one behind."""

    def __init__(self, *hosts: str) -> None:
        missing = sorted({package for tool, package in _TOOLS.items() if not shutil.which(tool)})
        if missing:
            pytest.fail(f"Install what network faults need: apt-get install {' '.join(missing)}")
        if os.geteuid() != 0:
            pytest.fail("Network namespaces need root: run make faults as root")
        self.hosts = hosts
        self._numbers = {host: number for number, host in enumerate(hosts, 1)}
        self.faults: Counter[str] = Counter()  # what was done and seen to take effect

    def __enter__(self) -> Self:
        remove_abandoned()
        try:
            self._build()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()

    def address(self, host: str) -> str:
        """Give a host's address."""
        return f"{_SUBNET}.{self._numbers[host]}"

    def command(self, host: str, *arguments: str) -> list[str]:
        """Make a command run on a host, under its name and in its network."""
        named = 'hostname "$0" && exec "$@"'
        unshared = ["unshare", "--uts", "sh", "-c", named, host, *arguments]
        return ["ip", "netns", "exec", self._space(host), *unshared]

    def reaches(self, host: str, other: str, port: int, timeout_s: float = 1.0) -> bool:
        """Say whether one host can open a connection to a port of another."""
        asked = [sys.executable, "-I", "-S", "-c", _CONNECT]
        target = (self.address(other), str(port), str(timeout_s))
        return subprocess.run(self.command(host, *asked, *target), check=False).returncode == 0

    @contextmanager
    def cable_out(self, host: str) -> Iterator[None]:
        """Pull a host's cable: the switch's end of it goes down, and the host loses its carrier."""
        port = f"port{self._numbers[host]}"
        self._ip("switch", "link", "set", port, "down")
        try:
            assert _soon(lambda: not self._has_carrier(host)), f"{host} still has a carrier"
            self.faults[f"link of {host} down"] += 1
            yield
            assert not self._has_carrier(host)
        finally:
            self._ip("switch", "link", "set", port, "up")
        assert _soon(lambda: self._has_carrier(host)), f"{host} has no carrier again"

    @contextmanager
    def answers_vanish(self, host: str, other: str, port: int) -> Iterator[None]:
        """Let a host hear the other's port, which answers into a black hole."""
        assert _soon(lambda: self.reaches(host, other, port))
        route = ("blackhole", f"{self.address(host)}/32")
        self._ip(other, "route", "add", *route)
        try:
            assert not self.reaches(host, other, port), "the black hole lets answers through"
            self.faults[f"answers of {other} to {host} into a black hole"] += 1
            yield
            assert not self.reaches(host, other, port)
        finally:
            self._ip(other, "route", "del", *route)
        assert _soon(lambda: self.reaches(host, other, port)), "the way is not open again"

    @contextmanager
    def packets_dropped(self, host: str, other: str, port: int) -> Iterator[None]:
        """Drop all packets between two hosts, both ways, without a word."""
        assert _soon(lambda: self.reaches(host, other, port))
        there = self.address(other)
        rules = (
            "table inet cut { counter lost {}\n"
            f"chain in {{ type filter hook input priority 0; "
            f'ip saddr {there} counter name "lost" drop; }}\n'
            f"chain out {{ type filter hook output priority 0; "
            f'ip daddr {there} counter name "lost" drop; }}\n}}'
        )
        self._nft(host, rules)
        try:
            assert not self.reaches(host, other, port), "packets get through"
            yield
            assert not self.reaches(host, other, port)
            lost = self._dropped_packets(host)
            assert lost > 0
            self.faults[f"packet between {host} and {other} dropped"] += lost
        finally:
            self._nft(host, "delete table inet cut")
        assert _soon(lambda: self.reaches(host, other, port)), "the way is not open again"

    @contextmanager
    def slowed(self, host: str, rate: str) -> Iterator[None]:
        """Let a host send no faster than this (``256kbit``); its packets queue up."""
        held = self._tc(host, "qdisc", "show")
        assert "tbf" not in held
        limits = ("rate", rate, "burst", "2kb", "latency", "2s")
        self._tc(host, "qdisc", "add", "dev", "eth0", "root", "tbf", *limits)
        try:
            yield
            waited = _number_after("overlimits", self._tc(host, "-s", "qdisc", "show"))
            assert waited > 0, f"nothing that {host} sent had to wait"
            self.faults[f"packet of {host} held back at {rate}"] += waited
        finally:
            self._tc(host, "qdisc", "del", "dev", "eth0", "root")

    def remove(self) -> None:
        """End the hosts' processes and remove their namespaces. Safe to repeat."""
        for space in _spaces(f"{_PREFIX}-{os.getpid()}-"):
            _remove(space)

    def _build(self) -> None:
        _run("ip", "netns", "add", self._space("switch"))
        self._ip("switch", "link", "add", "bridge", "type", "bridge")
        self._ip("switch", "link", "set", "bridge", "up")
        for host, number in self._numbers.items():
            _run("ip", "netns", "add", self._space(host))
            port, switch = f"port{number}", self._space("switch")
            self._ip(
                host,
                *("link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", switch),
            )
            self._ip("switch", "link", "set", port, "master", "bridge", "up")
            self._ip(host, "address", "add", f"{self.address(host)}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                self._ip(host, "link", "set", link, "up")

    def _has_carrier(self, host: str) -> bool:
        shown = self._ip(host, "-json", "link", "show", "eth0")
        return json.loads(shown)[0]["operstate"] == "UP"

    def _dropped_packets(self, host: str) -> int:
        counters = self._nft(host, "list counters")
        return _number_after("packets", counters)

    def _space(self, host: str) -> str:
        return f"{_PREFIX}-{os.getpid()}-{host}"

    def _ip(self, host: str, *arguments: str) -> str:
        return _run("ip", "-netns", self._space(host), *arguments)

    def _tc(self, host: str, *arguments: str) -> str:
        return _run("tc", "-netns", self._space(host), *arguments)

    def _nft(self, host: str, rules: str) -> str:
        return _run("ip", "netns", "exec", self._space(host), "nft", rules)


def remove_abandoned() -> None:
    """Remove the namespaces of runs that are no more, and the processes in them."""
    for space in _spaces(f"{_PREFIX}-"):
        owner = space.removeprefix(f"{_PREFIX}-").partition("-")[0]
        if not owner.isdigit() or not psutil.pid_exists(int(owner)):
            _remove(space)


def _remove(space: str) -> None:
    for pid in _run("ip", "netns", "pids", space).split():
        try:
            process = psutil.Process(int(pid))
            process.kill()
            process.wait(60)
        except psutil.NoSuchProcess:
            continue
    _run("ip", "netns", "delete", space)


def _spaces(prefix: str) -> list[str]:
    folder = Path("/run/netns")
    return sorted(one.name for one in folder.glob(f"{prefix}*")) if folder.is_dir() else []


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
    return done.stdout


def _soon(ask: Callable[[], bool]) -> bool:
    return eventually(ask, 10)


def _number_after(word: str, text: str) -> int:
    """Read the number that follows a word, as ``tc`` and ``nft`` print their counters."""
    words = text.replace(",", " ").split()
    return sum(int(words[at + 1]) for at, one in enumerate(words[:-1]) if one == word)
