"""Another account of the machine gets nothing of a running stack: no file, no folder, no socket."""

import json
import os
import pwd
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.running import RunningStack
from tests.waiting import eventually

PYTHON = "/usr/bin/python3"  # ours may lie where nobody else can read
LOOK = """
import os, socket, sys
for path in sys.stdin.read().split("\\0"):
    try:
        if os.path.isdir(path):
            os.listdir(path)
        elif path.endswith((".sock", ".5432")):
            socket.socket(socket.AF_UNIX).connect(path)
        else:
            open(path, "rb").close()
        print(path)
    except OSError:
        pass
"""


@pytest.fixture(scope="module")
def stack() -> Iterator[RunningStack]:
    """Run a stack that has received and analysed something."""
    with RunningStack() as running:
        running.start().wait_up()
        port = running.dicom_port
        sent = running.run(
            "simulate", "--plain", "--count", "2", "--rate", "100",
            "--to", f"FIRSTREAD@127.0.0.1:{port}",
        )  # fmt: skip
        assert sent.returncode == 0, sent.stderr

        def analysed() -> bool:
            status = running.run("status", "--json")
            return json.loads(status.stdout)["analyses"]["done"] >= 1

        assert eventually(analysed, 120, pause_s=1)
        yield running


def kept(stack: RunningStack) -> list[Path]:
    """Name everything that the stack keeps; the last is what the test itself writes."""
    found = [stack.home, *stack.home.rglob("*")]
    return [path for path in found if path != stack.output]


def look_as_nobody(paths: list[Path]) -> list[str]:
    """Try to open each as an account without rights; give what opened."""
    if os.geteuid() != 0:
        pytest.fail("only root can become another account: run this test as root")
    assert Path(PYTHON).exists(), "install the system's own Python: apt-get install python3"
    nobody = pwd.getpwnam("nobody")
    result = subprocess.run(
        [PYTHON, "-c", LOOK], input="\0".join(map(str, paths)), capture_output=True, text=True,
        user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[], cwd="/", check=True,
    )  # fmt: skip
    return result.stdout.splitlines()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")
def test_nobody_opens_nothing_that_the_stack_keeps(stack: RunningStack) -> None:
    paths = kept(stack)
    names = {path.relative_to(stack.home).parts[0] for path in paths[1:]}
    assert {"archive", "postgres", "run", "logs"} <= names
    assert any(path.suffix == ".dcm" for path in paths)
    assert any(path.suffix == ".png" for path in paths)
    assert any(path.name == "redis.sock" for path in paths)
    assert look_as_nobody(paths) == []
    own = stack.home / "archive" / "open.txt"
    own.parent.chmod(0o755)  # the look itself sees what is open
    own.write_text("x")
    own.chmod(0o644)
    try:
        assert str(own) in look_as_nobody([own])
    finally:
        own.unlink()
        own.parent.chmod(0o700)


def test_files_are_0600_and_folders_0700(stack: RunningStack) -> None:
    passed = {stack.home, stack.home / "run"} if os.geteuid() == 0 else set()
    loose = []
    for path in kept(stack):
        mode = stat.S_IMODE(path.lstat().st_mode)
        wanted = 0o711 if path in passed else 0o700 if path.is_dir() else 0o600
        if mode & ~wanted and not stat.S_ISSOCK(path.lstat().st_mode):
            loose.append(f"{path.relative_to(stack.home)} {mode:o}")
    assert loose == []


def test_no_secret_stands_in_a_command_line_or_a_log(stack: RunningStack) -> None:
    run = stack.home / "run"
    secrets = set(json.loads((run / "credentials.json").read_text()).values())
    for service in ("listener", "worker", "beat", "dashboard"):
        address = (run / f"{service}.url").read_text()
        secrets.add(address.partition("://")[2].partition("@")[0].partition(":")[2])
    assert len(secrets) >= 7
    assert all(len(secret) >= 32 for secret in secrets)
    lines = [" ".join(process.cmdline()) for process in stack.processes()]
    assert any("firstread listen" in line for line in lines)
    logs = [path.read_text(errors="replace") for path in (stack.home / "logs").iterdir()]
    told = [*lines, *logs, stack.told(), stack.run("doctor").stdout]
    assert [text[:80] for text in told if any(secret in text for secret in secrets)] == []


def test_each_service_runs_under_its_own_login(stack: RunningStack) -> None:
    for command in ("listen", "work", "beat"):
        variables = psutil.Process(stack.service(command).pid).environ()
        assert "FIRSTREAD_DATABASE_URL" not in variables
        path = Path(variables["FIRSTREAD_DATABASE_URL_FILE"])
        assert path.parent == stack.home / "run"
        assert "_service:" in path.read_text()
    owner = json.loads((stack.home / "run" / "endpoints.json").read_text())["database_url"]
    assert "//firstread:" in owner
