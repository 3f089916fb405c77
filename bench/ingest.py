"""Compare the listener with DCMTK's storescp, Orthanc and the disk itself: python -m bench.ingest

Objects per second, CPU per object, peak memory and the time to set an association up, all in one
run, the servers taking turns; ratios are what to compare between machines. TCP_NODELAY=1 is set
for every DCMTK program: without it a sender stalls for 40 ms per object.

Only the listener promises anything at Success: file and folder synced, rows committed to Postgres,
whose CPU is shown apart. storescp syncs nothing. The floor is what that promise costs by itself on
this disk: a bare loop of write, sync, rename, sync of the folder and a commit of one row to the
same Postgres, on as many threads as there are senders; it receives nothing.

Nothing is deleted before the end: where inodes were deleted in the last minutes, ext4 looks at
each of them before it gives a new file one, up to a millisecond. For the same reason a second run
within five minutes is slower than the first, for some servers more than for others.

A virtual machine that gives idle memory back to its host fetches each page that is new to its page
cache from there, which slows whoever writes large files. Under a memory limit the cache fills and
its pages are used again: systemd-run --scope -p MemoryMax=3G python -m bench.ingest. Without one, a
round may be several times slower than the next, for every server. All of it takes 50 GB of disk.

Memory is the proportional set size of all of a server's processes, sampled ten times a second in
a round of its own: to add it up the system walks through all of it, which would slow the server.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Timer

import psycopg

from bench.dicom_servers import (
    ENVIRONMENT,
    Server,
    Stores,
    association_set_up_ms,
    firstread,
    orthanc,
    stores,
    storescp,
)
from bench.processes import cpu_s, watched_memory
from bench.sent_objects import SentObjects

SIDES = {"50k": 160, "1m": 724, "10m": 2263}  # of a square image; what it is called
COUNTS = {"50k": 3200, "1m": 320, "10m": 48}  # objects a round, unless told otherwise
LONGEST_ROUND_S = 300
FLOOR = "floor"
ONE_SENDER_GOAL, STORESCP_GOAL, SET_UP_GOAL_MS, MEMORY_GOAL_MB = 0.8, 0.5, 5.0, 150.0
ORTHANC_GOALS = {"50k": 1.0, "1m": 1.0, "10m": 1.5}


@dataclass
class Measured:
    """What the rounds of one server at one load came to."""

    rates: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    helpers_ms: list[float] = field(default_factory=list)
    peak_mb: float = 0.0

    @property
    def rate(self) -> float:
        """Objects a second: the median of the rounds."""
        return statistics.median(self.rates)


def main() -> None:
    """Run the rounds and print a table for each load."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="50k,1m,10m", help="any of 50k, 1m, 10m")
    parser.add_argument("--associations", default="1,4,8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--objects", type=int, help="a round; by size unless given")
    parser.add_argument("--servers", default="firstread,storescp,orthanc,floor")
    parser.add_argument("--processes", default="1", help="of the listener; 1,2 measures both")
    parser.add_argument("--one-study", action="store_true", help="one study a sender, not a file")
    options = parser.parse_args()
    wanted = options.servers.split(",")
    root = Path(tempfile.mkdtemp(prefix="firstread-ingest-"))
    root.chmod(0o755)  # Postgres may run as another user
    try:
        with ExitStack() as running:
            used = running.enter_context(stores(root))
            starts = {
                "firstread": [
                    partial(firstread, root, used, int(processes))
                    for processes in options.processes.split(",")
                ],
                "storescp": [partial(storescp, root)],
                "orthanc": [partial(orthanc, root)],
            }
            servers = [
                running.enter_context(start())
                for name in wanted
                if name != FLOOR
                for start in starts[name]
            ]
            for server in servers:
                server.set_up_ms = association_set_up_ms(server.port)
            floor = partial(durability_floor, root / "floor", used)
            for size in options.sizes.split(","):
                for senders in map(int, options.associations.split(",")):
                    sent = SentObjects(
                        root / f"sent-{size}-{senders}",
                        senders=senders,
                        count=options.objects or COUNTS[size],
                        side=SIDES[size],
                        one_study=options.one_study,
                    )
                    measured = measure(
                        sent, servers, floor if FLOOR in wanted else None, options.rounds
                    )
                    report(size, senders, sent, servers, measured)
                    _empty(sent.paths)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def measure(
    sent: SentObjects,
    servers: list[Server],
    floor: Callable[[SentObjects], float] | None,
    rounds: int,
) -> dict[str, Measured]:
    """Let all take their turns, in another order each round."""
    measured = {server.name: Measured() for server in servers}
    if floor is not None:
        measured[FLOOR] = Measured()
    turns = [*servers, *([floor] if floor is not None else [])]
    for number in range(rounds):
        sent.renew()
        at = number % len(turns)
        for turn in turns[at:] + turns[:at]:
            os.sync()
            if isinstance(turn, Server):
                one_round(turn, sent, measured[turn.name])
            else:
                measured[FLOOR].rates.append(turn(sent))
    sent.renew()
    for server in servers:
        with watched_memory(server.pids) as samples:
            send(server, sent)
        measured[server.name].peak_mb = max(samples)
    return measured


def one_round(server: Server, sent: SentObjects, into: Measured) -> None:
    """Send objects from parallel senders and book what they cost."""
    before, helpers_before = cpu_s(server.pids()), cpu_s(server.helpers())
    into.rates.append(len(sent) / send(server, sent))
    into.cpu_ms.append((cpu_s(server.pids()) - before) / len(sent) * 1000)
    into.helpers_ms.append((cpu_s(server.helpers()) - helpers_before) / len(sent) * 1000)


def send(server: Server, sent: SentObjects) -> float:
    """Send each folder by a sender of its own, all at once; gives seconds."""
    to = ["-nh", "+sd", "-aec", "FIRSTREAD", "127.0.0.1", str(server.port)]
    started = time.monotonic()
    senders = [
        subprocess.Popen(["storescu", *to, str(folder)], env=ENVIRONMENT) for folder in sent.folders
    ]
    # Not wait(timeout), which looks again after pauses of up to 50 ms.
    guard = Timer(LONGEST_ROUND_S, lambda: [sender.kill() for sender in senders])
    guard.start()
    failed = [sender.wait() for sender in senders]
    elapsed = time.monotonic() - started
    guard.cancel()
    assert not any(failed), f"{server.name}: storescu ended with {failed}"
    return elapsed


def durability_floor(folder: Path, used: Stores, sent: SentObjects) -> float:
    """Make the same objects durable without receiving them; gives objects a second."""
    folder.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=folder))
    url = used.database_url.replace("+psycopg", "")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS floor (path text PRIMARY KEY)")
        connection.execute("TRUNCATE floor")
    contents = {path: path.read_bytes() for path in sent.paths}
    connections = [psycopg.connect(url, autocommit=True) for _ in sent.folders]
    with ThreadPoolExecutor(len(connections)) as threads:
        started = time.monotonic()
        works = [
            threads.submit(_make_durable, folder, connection, contents, of)
            for connection, of in zip(connections, sent.folders, strict=True)
        ]
        for work in works:
            work.result()
        elapsed = time.monotonic() - started
    for connection in connections:
        connection.close()
    _empty(folder.iterdir())
    return len(sent) / elapsed


def _empty(files: Iterable[Path]) -> None:
    """Give the files' space back, and leave the files."""
    for path in files:
        os.truncate(path, 0)


def _make_durable(
    folder: Path, connection: psycopg.Connection, contents: dict[Path, bytes], of: Path
) -> None:
    for path, content in contents.items():
        if path.parent != of:
            continue
        name = f"{of.name}-{path.name}"
        with (folder / f".{name}").open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        (folder / f".{name}").rename(folder / name)
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        connection.execute("INSERT INTO floor VALUES (%s)", (name,))


def report(
    size: str,
    senders: int,
    sent: SentObjects,
    servers: list[Server],
    measured: dict[str, Measured],
) -> None:
    """Print a line for each server, then each goal and how far it was met."""
    rounds = len(next(iter(measured.values())).rates)
    print(f"\n{senders} senders, {len(sent)} objects of {sent.size_bytes / 1e6:.2f} MB, ", end="")
    print(f"{rounds} rounds; medians (range)")
    print(f"{'':<17} objects/s           CPU ms/object  Postgres ms  peak MB  set-up p50 ms")
    set_ups = {server.name: server.set_up_ms for server in servers}
    for name, one in measured.items():
        spread = f"{one.rate:.1f} ({min(one.rates):.1f}-{max(one.rates):.1f})"
        print(f"{name:<17} {spread:<20}", end="")
        if name != FLOOR:
            print(f"{statistics.median(one.cpu_ms):>12.2f} ", end="")
            print(f"{statistics.median(one.helpers_ms):>12.2f} {one.peak_mb:>8.0f} ", end="")
            print(f"{set_ups[name]:>14.2f}", end="")
        print()
    for name in (name for name in measured if name.startswith("firstread")):
        print(f"{name}: " + "; ".join(goals(size, senders, measured, name, set_ups[name])))
    print(flush=True)


def goals(
    size: str, senders: int, measured: dict[str, Measured], name: str, set_up_ms: float
) -> list[str]:
    """Say what was aimed at and what was reached."""
    ours, said = measured[name], []

    def against(other: str, goal: float) -> None:
        if other in measured:
            reached = ours.rate / measured[other].rate
            verdict = "met" if reached >= goal else "MISSED"
            said.append(f"{reached:.2f} x {other} (goal {goal:.1f}: {verdict})")

    if senders == 1:
        against(FLOOR, ONE_SENDER_GOAL)
    else:
        against("Orthanc", ORTHANC_GOALS[size])
        against("storescp --fork", STORESCP_GOAL)
    verdict = "met" if set_up_ms < SET_UP_GOAL_MS else "MISSED"
    said.append(f"set-up {set_up_ms:.1f} ms (goal {SET_UP_GOAL_MS:.0f}: {verdict})")
    if (size, senders) == ("10m", 8):
        verdict = "met" if ours.peak_mb <= MEMORY_GOAL_MB else "MISSED"
        said.append(f"{ours.peak_mb:.0f} MB (goal {MEMORY_GOAL_MB:.0f}: {verdict})")
    return said


if __name__ == "__main__":
    main()
