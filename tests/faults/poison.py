"""A real listener that is sent poison: what it answered, and what it cost in the end.

    with Target(settings, folder) as target:
        objects = send_poisoned_objects(target, 2000, seed=1)
        streams = send_poisoned_streams(target, 2000, seed=2)
        target.check_unharmed()

Valid neighbours are sent in between on associations of their own; each must hear Success.
"""

import hashlib
import os
import random
import secrets
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import psutil
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from common.settings import Settings
from common.tables import Instance, SetAside
from tests.e2e.running import free_port
from tests.faults.objects import fixed_uids
from tests.faults.process import Process
from tests.faults.tally import Tally
from tests.integration.listener.conftest import data_set_bytes, radiograph
from tests.mutations import mutate_object, mutate_stream
from tests.radiographs import write_radiograph
from tests.raw_peer import (
    ASSOCIATE_AC,
    RELEASE_RQ,
    RawPeer,
    association_request,
    pdu,
    pdv,
    store_command,
)
from tests.waiting import eventually, stretch

LISTEN = """
import faulthandler, signal, sys, threading
from common.logs import configure_logs
from common.settings import get_settings
from dicom_listener.service import Listener
configure_logs("listener", "info")
faulthandler.register(signal.SIGUSR1)
listener = Listener(get_settings(), direct=sys.argv[1] == "direct")
listener.start()
print("listener_started", flush=True)
threading.Event().wait()
"""
TIMEOUT_S = 2.0  # at rest, what the listener waits for; a PDU that drips may take twice as long
PEERS, NEIGHBOUR_EVERY, PER_ASSOCIATION, WAIT_EVERY = 6, 10, 10, 10
KNOWN = {0x0000, 0xA700, 0xA900, 0xC000, 0xC001, 0x0117}
MAX_GROWTH_BYTES = 24 << 20
POOLED = 8  # connections of the database that are kept: one a peer at most
POOLED_THREADS = 2 * POOLED  # that sync a file and its name: where the disk is slow, two a peer


class Vitals(NamedTuple):
    """What a process holds."""

    rss_bytes: int
    threads: int
    descriptors: int


class Target:
    """A listener process in a folder of its own, and everything that may be asked of it."""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        *,
        direct: bool = True,
        before: Sequence[str] = (),
        **variables: str,
    ) -> None:
        """Describe it; ``before`` is put before the command, as ``strace -f``."""
        timeout_s = TIMEOUT_S * stretch()
        self.ends_within_s = 6 * timeout_s
        self.folder = folder
        self.working = folder / "working"
        self.working.mkdir(parents=True)
        self.port = free_port()
        self.archive = folder / "home" / "archive"
        environment = {
            "FIRSTREAD_HOME": str(folder / "home"),
            "FIRSTREAD_DATABASE_URL": settings.database_address(),
            "FIRSTREAD_BROKER_URL": settings.broker_address(),
            "FIRSTREAD_DICOM_PORT": str(self.port),
            "FIRSTREAD_ARCHIVE_RESERVE_BYTES": "0",
            "FIRSTREAD_DICOM_ACSE_TIMEOUT_S": str(timeout_s),
            "FIRSTREAD_DICOM_DIMSE_TIMEOUT_S": str(timeout_s),
            "FIRSTREAD_DICOM_NETWORK_TIMEOUT_S": str(3 * timeout_s),  # a cold store may take long
            **variables,
        }
        self.process = Process(
            "the listener",
            [sys.executable, "-c", LISTEN, "direct" if direct else "pynetdicom"],
            folder / "listener.log",
            environment,
            prefix=["env", "-C", str(self.working), *before],
            ready_word="listener_started",
        )
        self.sent: dict[str, bytes] = {}  # neighbours: their data sets' hashes
        self.acknowledged: set[str] = set()
        self._template = _template(folder / "template.dcm")
        self._lock = threading.Lock()
        self._start: Vitals | None = None

    def __enter__(self) -> Self:
        self.process.start()
        try:
            self.process.wait_ready()
        except BaseException:
            self.process.clear()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            sys.stdout.write(self.process.told()[-3000:])
        self.process.clear()

    def vitals(self) -> Vitals:
        """Measure the process now."""
        process = psutil.Process(self.process.pid)
        return Vitals(process.memory_info().rss, process.num_threads(), process.num_fds())

    def mark(self) -> Vitals:
        """Call it warm: memory, threads and descriptors are compared with this moment."""
        self._start = self.settled_vitals()
        return self._start

    def settled_vitals(self) -> Vitals:
        """Wait until nobody is served any more, and measure."""
        assert eventually(self._is_quiet, 15), f"not quiet: {self._start}, then {self._stacks()}"
        return self.vitals()

    def new_object(self) -> tuple[str, str, bytes]:
        """Give class, instance UID and data set of an object that is sent for the first time."""
        sop_class, uid, data = self._template
        digits = len(uid) - len("2.25.")
        new = f"2.25.{secrets.randbelow(9 * 10 ** (digits - 1)) + 10 ** (digits - 1)}"
        return sop_class, new, data.replace(uid.encode(), new.encode())

    def send_neighbour(self) -> None:
        """Send a valid object on an association of its own: Success, or the case fails."""
        sop_class, uid, data = self.new_object()
        with self._lock:
            self.sent[uid] = hashlib.sha256(data).digest()
        with RawPeer(self.port, self.ends_within_s) as peer:
            peer.associate(sop_class)
            status = store(peer, sop_class, uid, data)
            peer.socket.sendall(pdu(b"\0\0\0\0", kind=RELEASE_RQ))
        assert status == 0, f"a valid neighbour heard {status}"
        with self._lock:
            self.acknowledged.add(uid)

    def check_unharmed(self, max_growth_bytes: int = MAX_GROWTH_BYTES) -> Vitals:
        """Hold memory, threads, descriptors and log to what they were."""
        assert self.process.running
        assert self._start is not None
        now = self.settled_vitals()
        assert now.rss_bytes - self._start.rss_bytes < max_growth_bytes, (self._start, now)
        assert now.threads <= self._start.threads + POOLED_THREADS, (self._start, now)
        assert now.descriptors <= self._start.descriptors + POOLED, (self._start, now)
        assert self.defects() == []
        return now

    def defects(self) -> list[str]:
        """List what the log tells of threads that died and of errors of ours."""
        lines = self.process.told().splitlines()
        uncaught = [line for line in lines if line.startswith(("Traceback", "Exception in"))]
        return uncaught + [line for line in lines if '"level": "error"' in line]

    def check_folders(self, sessions: sessionmaker[Session]) -> None:
        """See that the archive holds what the ledger knows, and nothing lies anywhere else."""
        with sessions() as session:
            known = set(session.scalars(select(Instance.path)))
            known |= set(session.scalars(select(SetAside.path)))
        found = {
            str(path.relative_to(self.archive))
            for path in self.archive.rglob("*")
            if path.is_file() and path.suffix != ".lock"
        }
        assert found == known, (found ^ known, len(known))
        assert not list(self.working.iterdir())
        outside = {path for path in self.folder.rglob("*") if path.is_file()}
        outside -= set(self.archive.rglob("*"))
        assert {path.name for path in outside} <= {"listener.log", "template.dcm"}

    def tally(self, case: str, sessions: sessionmaker[Session], faults: dict[str, int]) -> Tally:
        """Count the valid neighbours against ledger and archive."""
        with sessions() as session:
            rows = session.execute(
                select(Instance.sop_instance_uid, Instance.path).where(
                    Instance.sop_instance_uid.in_(self.sent)
                )
            ).all()
        intact = {
            row.sop_instance_uid
            for row in rows
            if hashlib.sha256(data_set_bytes(self.archive / row.path)).digest()
            == self.sent[row.sop_instance_uid]
        }
        return Tally(
            case=case,
            sent=len(self.sent),
            acknowledged=len(self.acknowledged),
            stored=len(intact),
            done=0,
            duplicates=len(rows) - len({row.sop_instance_uid for row in rows}),
            lost=len(self.acknowledged - intact),
            faults=faults,
        )

    def _stacks(self) -> str:
        """Say what the process holds, and let it write into its log where each thread is."""
        told = len(self.process.told())
        os.kill(self.process.pid, signal.SIGUSR1)
        eventually(lambda: len(self.process.told()) > told, 5)
        open_ones = psutil.Process(self.process.pid).net_connections()
        return f"{self.vitals()}, {open_ones}\n{self.process.told()[told:]}"

    def _is_quiet(self) -> bool:
        process = psutil.Process(self.process.pid)
        open_ones = [one for one in process.net_connections("inet") if one.status != "LISTEN"]
        ceiling = self._start.threads + POOLED_THREADS if self._start else sys.maxsize
        return not open_ones and process.num_threads() <= ceiling


def store(peer: RawPeer, sop_class: str, uid: str, data: bytes) -> int | None:
    """Send one object; give its status, None if the association ended instead."""
    peer.socket.sendall(pdu(pdv(store_command(sop_class, uid), command=True, last=True)))
    for at in range(0, len(data), 16000):
        part = data[at : at + 16000]
        peer.socket.sendall(pdu(pdv(part, command=False, last=at + 16000 >= len(data))))
    return peer.read_status()


def send_poisoned_objects(target: Target, count: int, seed: int) -> Counter[int]:
    """Send so many mutated data sets in well-formed messages; count the statuses.

    Each must be answered, and never with 0x0110, which says that the listener has a defect.
    """

    def send(batch: int) -> Counter[int]:
        chooser = random.Random(f"{seed} {batch}")
        statuses = Counter[int]()
        with RawPeer(target.port, target.ends_within_s) as peer:
            sop_class, *_ = target.new_object()
            peer.associate(sop_class)
            for _ in range(min(PER_ASSOCIATION, count - batch * PER_ASSOCIATION)):
                sop_class, uid, data = target.new_object()
                status = store(peer, sop_class, uid, mutate_object(data, chooser) or b"\0")
                assert status in KNOWN, f"{status} in batch {batch} of seed {seed}"
                statuses[status] += 1
            peer.socket.sendall(pdu(b"\0\0\0\0", kind=RELEASE_RQ))
        target.send_neighbour()
        return statuses

    batches = range(-(-count // PER_ASSOCIATION))
    with ThreadPoolExecutor(PEERS) as threads:
        return sum(threads.map(send, batches), Counter[int]())


def send_poisoned_streams(target: Target, count: int, seed: int) -> Counter[str]:
    """Send so many mutated streams of PDUs; count how they ended.

    Of every tenth the end is waited for: the listener must hang up, whatever it still hopes for.
    """

    def send(number: int) -> str:
        chooser = random.Random(f"{seed} {number}")
        sop_class, uid, data = target.new_object()
        request = association_request(sop_class, "FIRSTREAD")
        message = [
            pdu(pdv(store_command(sop_class, uid), command=True, last=True)),
            pdu(pdv(data[:700], command=False, last=False)),
            pdu(pdv(data[700:], command=False, last=True)),
            pdu(b"\0\0\0\0", kind=RELEASE_RQ),
        ]
        if number % NEIGHBOUR_EVERY == 0:
            target.send_neighbour()
        with RawPeer(target.port, target.ends_within_s) as peer:
            if chooser.random() < 0.5:
                peer.socket.sendall(request)
                kind, _ = peer.read_pdu()
                assert kind == ASSOCIATE_AC
                stream = mutate_stream(message, chooser)
            else:
                stream = mutate_stream([request, *message], chooser)
            try:
                peer.socket.sendall(stream)
                return (
                    _wait_for_end(peer.socket, target.ends_within_s)
                    if number % WAIT_EVERY == 5
                    else "left"
                )
            except (BrokenPipeError, ConnectionResetError):
                return "cut off"

    with ThreadPoolExecutor(PEERS) as threads:
        return Counter(threads.map(send, range(count)))


def _wait_for_end(connection: socket.socket, within_s: float) -> str:
    """Read until the listener hangs up; raises if it does not in time."""
    deadline = time.monotonic() + within_s
    while True:
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        if not connection.recv(1 << 16):
            return "hung up"


def _template(path: Path) -> tuple[str, str, bytes]:
    dataset = radiograph(**fixed_uids())
    write_radiograph(dataset, path)
    return str(dataset.SOPClassUID), str(dataset.SOPInstanceUID), data_set_bytes(path)
