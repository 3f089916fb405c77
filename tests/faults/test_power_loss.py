"""What a kill cannot show: the order in which an object reaches the disk before its sender hears.

Needs strace (``make system`` installs it).
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from common.database import DURABILITY
from common.errors import ConfigurationError
from common.settings import Settings
from dicom_listener.service import Listener
from firstread.doctor import examine
from tests.e2e.running import free_port
from tests.faults.stack import Stack

CALLS = "fsync,fdatasync,rename,renameat,renameat2,mkdir,sendto,recvfrom,write,sendmsg"
_CALL = re.compile(r"^(\d+) +(\w+)\((.*)$")
_RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)$")
# Postgres is ready for the next query, and no transaction is open any more.
IDLE = r"Z\0\0\0\5I"
OBJECTS = 8


@dataclass
class Call:
    """One system call of the listener: the lines of the trace on which it began and ended."""

    name: str
    text: str
    began: int
    ended: int


def read_trace(trace: Path) -> list[Call]:
    """Put the halves of interrupted lines together."""
    calls: list[Call] = []
    open_calls: dict[str, Call] = {}
    for number, line in enumerate(trace.read_text(errors="replace").splitlines()):
        if resumed := _RESUMED.match(line):
            call = open_calls.pop(resumed[1], None)
            if call is not None:
                call.text += resumed[3]
                call.ended = number
        elif found := _CALL.match(line):
            call = Call(found[2], found[3], number, number)
            calls.append(call)
            if line.endswith("<unfinished ...>"):
                open_calls[found[1]] = call
    return [call for call in calls if call not in open_calls.values()]


def first(calls: list[Call], after: int, names: str, *words: str) -> Call:
    """Find the first call of these names that begins after a line and holds all the words."""
    for call in calls:
        is_it = call.name in names.split() and all(word in call.text for word in words)
        if is_it and call.began > after and "= -1" not in call.text:
            return call
    raise AssertionError(f"no {names} with {words} after line {after}")


@pytest.mark.parametrize("associations", [1, 4])
def test_an_object_is_on_disk_and_committed_before_its_sender_hears_success(
    tmp_path: Path, associations: int
) -> None:
    assert shutil.which("strace"), "strace is missing: run make system, or apt-get install strace"
    trace = tmp_path / "trace"
    strace = ("strace", "-f", "-yy", "-s", "4096", "-e", f"trace={CALLS}", "-o", str(trace))
    with Stack(workers=0, prefixes={"listener": strace}) as stack:
        sending = stack.send(
            at_least=OBJECTS, associations=associations, per_association=OBJECTS // associations
        )
        sending.finish()
        assert len(sending.acknowledged) == OBJECTS
        port = stack.ports[0]
        archive = stack.archive.root
        calls = read_trace(trace)
    for uid, sent in sending.objects.made.items():
        sha256 = sent.sha256.hex()
        folder = f"{archive}/objects/{sha256[:2]}>"
        rename = first(calls, 0, "rename renameat renameat2", f"{sha256}.dcm")
        source = rename.text.split('"')[1]
        file_synced = first(calls, 0, "fsync fdatasync", f"{source}>")
        folder_synced = first(calls, rename.ended, "fsync", folder)
        parent_synced = first(calls, 0, "fsync", f"{archive}/objects>")
        registered = first(calls, 0, "sendto", f"{sha256}.dcm")
        line = registered.text.split(",")[0]
        committed = first(calls, registered.ended, "recvfrom", line, IDLE)
        to_sender = f"TCP:[127.0.0.1:{port}->"
        answer = first(calls, 0, "sendto write sendmsg", to_sender, r'"\4\0', uid)
        order = [
            ("the file's bytes are synced", file_synced.ended, rename.began),
            ("before it gets its name, whose folder is synced", rename.ended, folder_synced.began),
            ("before its rows are sent", folder_synced.ended, registered.began),
            ("and the server has committed them", registered.ended, committed.ended),
            ("before the sender is told", committed.ended, answer.began),
        ]
        for what, earlier, later in order:
            assert earlier < later, f"{what}: lines {earlier} and {later} of the trace"
        assert parent_synced.ended < answer.began, "the folder's own name is durable too"


@pytest.mark.parametrize("name", DURABILITY)
def test_doctor_and_listener_refuse_a_database_that_may_lose_commits(
    name: str, postgres: str, settings: Settings
) -> None:
    admin = create_engine(postgres, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"ALTER SYSTEM SET {name} = off"))
        connection.execute(text("SELECT pg_reload_conf()"))
    try:
        findings = {finding.subject: finding for finding in examine(settings)}
        assert not findings["durability"].ok
        assert findings["durability"].says.startswith(f"{name} is off")
        with pytest.raises(ConfigurationError, match=f"{name} is off"):
            Listener(settings.model_copy(update={"dicom_port": free_port()}))
    finally:
        with admin.connect() as connection:
            connection.execute(text(f"ALTER SYSTEM RESET {name}"))
            connection.execute(text("SELECT pg_reload_conf()"))
        admin.dispose()
    assert {one.subject: one.ok for one in examine(settings)}["durability"]
