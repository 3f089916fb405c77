"""Every file that a listener makes or changes lies in its archive, whatever a sender calls things.

Its system calls say so (strace, which ``make system`` installs): no folder is forgotten.
"""

import os
import re
import shutil
import struct
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy.orm import Session, sessionmaker

from common.settings import Settings
from tests.faults.chance import seed_of
from tests.faults.poison import Target, send_poisoned_objects, store
from tests.mutations import element_positions
from tests.raw_peer import RELEASE_RQ, RawPeer, pdu

CALLS = "open,openat,openat2,creat,truncate,mkdir,mkdirat,mknod,mknodat,rename,renameat,renameat2"
CALLS += ",link,linkat,symlink,symlinkat,unlink,unlinkat,rmdir,chmod,fchmodat,chown,fchownat"
_CALL = re.compile(r"^(?:\d+ +)?(\w+)\((.*)")
_NAME = re.compile(r'(?:(AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
_WRITES = ("O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND")
NAMES = (
    b"../../../../../../tmp/firstread-poison",
    b"/tmp/firstread-poison",
    b"/etc/firstread-poison",
    b"..\\..\\firstread-poison",
    b"~/firstread-poison",
    b"firstread-poison",
    b"firstread-poison/../../..",
    b"%2e%2e%2ffirstread-poison",
    b"$(touch firstread-poison)",
)
_TEXTS = (b"UI", b"PN", b"LO", b"SH", b"CS", b"DA", b"TM", b"AS", b"IS", b"DS")


def changed_paths(trace: Path, working: Path) -> Counter[str]:
    """Count the paths that a trace's calls make, change, name anew or remove."""
    found = Counter[str]()
    for line in trace.read_text(errors="replace").splitlines():
        call = _CALL.match(line)
        if call is None:
            continue
        name, arguments = call.groups()
        if name.startswith("open") and not any(flag in arguments for flag in _WRITES):
            continue
        for _, folder, path in _NAME.findall(arguments):
            found[os.path.normpath(Path(folder or working) / path)] += 1
    return found


def with_value(data: bytes, at: int, value: bytes) -> bytes:
    """Put another value into a short text element, its length told truly."""
    value += b"\0" * (len(value) % 2)
    length = struct.unpack_from("<H", data, at + 6)[0]
    return data[: at + 6] + struct.pack("<H", len(value)) + value + data[at + 8 + length :]


def send_names(target: Target) -> Counter[int | None]:
    """Send every name in the place of every text, and as the UID that a command announces."""
    statuses = Counter[int | None]()
    _, _, template = target.new_object()
    places = [at for at in element_positions(template) if template[at + 4 : at + 6] in _TEXTS]
    assert len(places) > 10
    for name in NAMES:
        with RawPeer(target.port, target.ends_within_s) as peer:
            sop_class, *_ = target.new_object()
            peer.associate(sop_class)
            for at in places:
                _, uid, data = target.new_object()
                statuses[store(peer, sop_class, uid, with_value(data, at, name))] += 1
            _, uid, data = target.new_object()
            harmed = data.replace(uid.encode(), name[: len(uid)].ljust(len(uid), b"\0"))
            statuses[store(peer, sop_class, name.decode(), harmed)] += 1
            peer.socket.sendall(pdu(b"\0\0\0\0", kind=RELEASE_RQ))
    return statuses


@pytest.mark.system
def test_no_name_that_a_sender_chooses_makes_a_file_outside_the_archive(
    settings: Settings, sessions: sessionmaker[Session], tmp_path: Path
) -> None:
    assert shutil.which("strace"), "strace is missing: run make system, or apt-get install strace"
    trace = tmp_path / "trace"
    strace = ("strace", "-f", "-y", "-s", "4096", "-e", f"trace={CALLS}", "-o", str(trace))
    with Target(settings, tmp_path / "site", before=strace, PYTHONDONTWRITEBYTECODE="1") as target:
        statuses = send_names(target)
        statuses += send_poisoned_objects(target, 200, seed_of("no file outside"))
        assert statuses[0] > 50, statuses
        assert statuses[0x0117] > 20, statuses
        assert target.defects() == []
        target.check_folders(sessions)
        named = statuses.total()
        tally = target.tally("no file outside the archive", sessions, {"names and harms": named})
        changed = changed_paths(trace, target.working)
    archive = f"{target.archive}{os.sep}"
    inside = {path for path in changed if f"{path}{os.sep}".startswith(archive)}
    assert len(inside) > statuses[0], "the trace shows too little"
    outside = {
        path
        for path in changed
        if path not in inside and not path.startswith(("/proc/self/", "/dev/"))
    }
    # The archive's own folders are made at start, by the name that the site gave them.
    assert outside <= {str(parent) for parent in target.archive.parents}, outside
    assert not any("firstread-poison" in path for path in changed)
    tally.check()
