"""The servers under test, each a process of its own: ours, DCMTK's storescp, Orthanc."""

import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context

from bench.ledger import kept_postgres
from bench.processes import session_pids, tree_pids
from tests.own_broker import running_broker

REPOSITORY = Path(__file__).parent.parent
# Our own Python's programs come last: pynetdicom has some that are named as DCMTK's are.
_PATH = sorted(os.get_exec_path(), key=str(Path(sys.executable).parent).__eq__)
ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1", "PATH": os.pathsep.join(_PATH)}
SERVE = "from common.settings import get_settings as s; from dicom_listener.service import serve; "
SERVE += "serve(s())"


@dataclass
class Server:
    """One server under test."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    helpers: Callable[[], list[int]] = list  # processes that work for it, e.g. Postgres
    set_up_ms: float = 0.0

    def pids(self) -> list[int]:
        """List the server's own processes."""
        return session_pids(self.process.pid)


@dataclass(frozen=True)
class Stores:
    """The Postgres and the Redis that our listener and the durability floor stand on."""

    database_url: str
    broker_url: str
    postmaster: int


@contextmanager
def stores(root: Path) -> Iterator[Stores]:
    """Run a Postgres with the ledger's tables, and a Redis."""
    with kept_postgres(root / "postgres") as url, running_broker() as broker:
        postmaster = int((root / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
        yield Stores(url, broker.url, postmaster)


@contextmanager
def firstread(root: Path, used: Stores, processes: int = 1) -> Iterator[Server]:
    """Run our listener."""
    home = root / f"firstread-{processes}"
    home.mkdir()
    port = free_port()
    environment = {
        **os.environ,
        "FIRSTREAD_HOME": str(home),
        "FIRSTREAD_DATABASE_URL": used.database_url,
        "FIRSTREAD_BROKER_URL": used.broker_url,
        "FIRSTREAD_DICOM_PORT": str(port),
        "FIRSTREAD_DICOM_PROCESSES": str(processes),
        "FIRSTREAD_LOG_LEVEL": "warning",
    }
    name = "firstread" if processes == 1 else f"firstread x{processes}"
    with _running([sys.executable, "-c", SERVE], port, environment) as process:
        yield Server(name, port, process, lambda: tree_pids(used.postmaster))


@contextmanager
def storescp(root: Path) -> Iterator[Server]:
    """Run DCMTK's storescp with a process per association."""
    folder, port = root / "storescp", free_port()
    folder.mkdir()
    arguments = ["storescp", "--fork", "--max-pdu", "131072", "-od", str(folder), str(port)]
    with _running(arguments, port, ENVIRONMENT) as process:
        yield Server("storescp --fork", port, process)


@contextmanager
def orthanc(root: Path) -> Iterator[Server]:
    """Run Orthanc with its SQLite index."""
    folder, port = root / "orthanc", free_port()
    folder.mkdir()
    configuration = {
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "DicomAet": "FIRSTREAD",
        "DicomPort": port,
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowStore": True,
        "DicomThreadsCount": 8,
        "MaximumPduLength": 131072,
        "HttpServerEnabled": False,
        "Plugins": [],
    }
    (root / "orthanc.json").write_text(json.dumps(configuration))
    with _running([_orthanc(), str(root / "orthanc.json")], port, ENVIRONMENT) as process:
        yield Server("Orthanc", port, process)


def _orthanc() -> str:
    found = shutil.which("Orthanc")
    assert found, "Orthanc is not installed: apt-get install orthanc, or leave it out of --servers"
    return found


@contextmanager
def _running(
    arguments: list[str], port: int, environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in a session of its own, and wait until it listens."""
    process = subprocess.Popen(
        arguments,
        env=environment,
        cwd=REPOSITORY,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, f"{arguments[0]} ended with {process.returncode}"
                assert time.monotonic() < deadline, f"{arguments[0]} does not listen"
                time.sleep(0.05)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def association_set_up_ms(port: int, times: int = 60) -> float:
    """Measure request to answer of an association as a CR sends it: the median of many."""
    request, abort = _association_request(), A_ABORT_RQ()
    abort.source = abort.reason_diagnostic = 0
    taken = []
    for _ in range(times):
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            started = time.perf_counter()
            connection.sendall(request)
            answer = connection.recv(1)
            taken.append((time.perf_counter() - started) * 1000)
            assert answer == b"\x02", f"not accepted: {answer!r}"
            connection.sendall(abort.encode() or b"")
        time.sleep(0.02)
    return statistics.median(taken)


def _association_request() -> bytes:
    """Encode an A-ASSOCIATE-RQ with one class in two contexts."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = "BENCH", "FIRSTREAD"
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = 16384
    implementation.implementation_class_uid = generate_uid()
    primitive.user_information = [length, implementation]
    contexts = [
        build_context(DigitalXRayImageStorageForPresentation, syntax)
        for syntax in (ExplicitVRLittleEndian, "1.2.840.10008.1.2.4.70")
    ]
    for number, context in enumerate(contexts):
        context.context_id = 2 * number + 1
    primitive.presentation_context_definition_list = contexts
    request = A_ASSOCIATE_RQ()
    request.from_primitive(primitive)
    return bytes(request.encode() or b"")


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
