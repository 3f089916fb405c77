"""The command line: its help tells the truth, its mistakes are one line."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from firstread.cli import app
from firstread.settings_page import settings_page
from tests.conftest import REPOSITORY

NAMED_BY_THE_PROJECT = {
    "up", "demo", "listen", "work", "beat", "dashboard", "migrate", "send", "simulate", "triage",
    "worklist", "status", "close", "retry", "reprocess", "models", "doctor", "train", "audit",
    "retain",
}  # fmt: skip


def all_commands(group: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - Typer's own click
    """Give every command with its full name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from ((f"{name} {inner}", leaf) for inner, leaf in all_commands(command))
        else:
            yield name, command


COMMANDS = dict(all_commands(typer.main.get_command(app)))


def run(*arguments: str, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "firstread", *arguments],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "FIRSTREAD_HOME": str(home), "COLUMNS": "200", **variables},
        timeout=120,
        check=False,
    )


def test_every_promised_command_is_there() -> None:
    assert {name.split()[0] for name in COMMANDS} == NAMED_BY_THE_PROJECT


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_an_example_that_parses(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = COMMANDS[name]
    label, _, example = (command.epilog or "").partition(": ")
    assert label == "Example"
    words = shlex.split(example)
    words = words[words.index("firstread") :]  # behind any variables
    assert words[: 1 + len(name.split())] == ["firstread", *name.split()]
    arguments = words[1 + len(name.split()) :]
    for folder in ("study", "images", "ct"):  # that the examples speak of
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path)
    command.make_context(name, arguments)


def test_a_setting_that_cannot_be_is_one_red_line_and_status_2(tmp_path: Path) -> None:
    result = run("doctor", home=tmp_path, FIRSTREAD_DICOM_PORT="many")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "FIRSTREAD_DICOM_PORT" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_command_without_a_stack_says_how_to_start_one(tmp_path: Path) -> None:
    result = run("worklist", "--json", home=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    assert "firstread up" in result.stderr


def test_the_doctor_works_before_anything_runs(tmp_path: Path) -> None:
    result = run("doctor", home=tmp_path, FIRSTREAD_DICOM_PORT="1", FIRSTREAD_DASHBOARD_PORT="2")
    assert result.returncode == 1
    problems = [line for line in result.stdout.splitlines() if line.startswith("PROBLEM")]
    assert {line.split(":")[0].split()[1] for line in problems} == {
        "database", "broker", "listener", "dashboard",
    }  # fmt: skip
    assert all("firstread up" in line for line in problems)
    assert not (tmp_path / "run").exists()


def test_the_dashboard_refuses_an_address_that_others_can_reach(tmp_path: Path) -> None:
    result = run("dashboard", home=tmp_path, FIRSTREAD_DASHBOARD_HOST="192.0.2.1")
    assert result.returncode == 2
    assert "FIRSTREAD_DASHBOARD_HOST" in result.stderr


def test_help_comes_without_loading_what_commands_need() -> None:
    script = (
        "import sys, json; from firstread.cli import app; "
        "print(json.dumps([m for m in ('torch', 'sqlalchemy', 'streamlit', 'pydicom', 'celery') "
        "if m in sys.modules]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    assert json.loads(result.stdout) == []


def test_the_settings_page_is_current() -> None:
    page = (REPOSITORY / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == settings_page(), "run: make docs"
