"""The table of a run of make faults: whole with its sums, whatever became of a case."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.faults.tally import TABLE, Tally, print_table

CASES = """
import os, time
import pytest
from tests.faults import conftest
from tests.faults.tally import Tally
conftest.CASE_S = 1.0

def counted(case, lost=0):
    Tally(case, 5, 5, 5, 5, 0, lost, {"SIGKILL of the listener": 2}).check()

def test_good():
    counted("good")

def test_losing():
    counted("losing", lost=1)

def test_broken():
    raise RuntimeError("no | such thing")

def test_endless():
    try:
        time.sleep(60)
    except Exception:
        pass

def test_after_it():
    counted("after it")
"""


def test_a_failure_and_a_case_without_end_have_their_line_and_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "cases"
    folder.mkdir()
    (folder / "conftest.py").write_text(
        "from pathlib import Path\nfrom tests.faults import conftest\n"
        "conftest.FOLDER = Path(__file__).parent\nfrom tests.faults.conftest import *\n"
        "from tests.faults.conftest import _ends_in_time\n"
    )
    (folder / "test_cases.py").write_text(CASES)
    (folder / "pytest.ini").write_text("[pytest]\n")
    table = tmp_path / "table.csv"
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(folder)],
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "FAULT_SEED": "77",
            "FAULT_STRETCH": "1",
            TABLE: str(table),
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "FAULT_SEED=77; begun " in ended.stdout
    assert "cases passed 2, failed 3" in ended.stdout
    print_table(table)
    lines = capsys.readouterr().out.splitlines()
    firsts = [line.split(" | ")[0].removeprefix("| ") for line in lines[2:]]
    assert firsts == [
        *("good", "losing", "test_losing", "test_broken", "test_endless", "after it", "all"),
    ]
    assert all(line.count("|") == lines[0].count("|") for line in lines)
    assert "RuntimeError: no / such thing" in lines[5]
    assert "the case had not ended after 1 s" in lines[6]
    assert lines[-1] == "| all | 15 | 15 | 15 | 15 | 0 | 1 |  |"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lost": 1}, "lost"),
        ({"duplicates": 1}, "duplicates"),
        ({"acknowledged": 0}, "nothing was acknowledged"),
        ({"faults": {}}, "no fault"),
        ({"faults": {"SIGKILL": 0}}, "did not happen"),
    ],
)
def test_a_case_that_shows_nothing_or_lost_something_fails(
    changed: dict, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TABLE, raising=False)
    good = {"case": "c", "sent": 1, "acknowledged": 1, "stored": 1, "done": 1, "duplicates": 0}
    good |= {"lost": 0, "faults": {"SIGKILL": 1}}
    Tally(**good).check()
    with pytest.raises(AssertionError, match=message):
        Tally(**{**good, **changed}).check()
