"""What processes cost: CPU time and memory, read from /proc."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_SAMPLE_EVERY_S = 0.1


def session_pids(leader: int) -> list[int]:
    """List the processes of a session."""
    return [pid for pid, fields in _stat_of_all() if int(fields[3]) == leader]


def tree_pids(root: int) -> list[int]:
    """List a process and its children."""
    return [pid for pid, fields in _stat_of_all() if pid == root or int(fields[1]) == root]


def cpu_s(pids: list[int]) -> float:
    """Sum the CPU time of processes and of their children that have ended."""
    wanted, ticks = set(pids), os.sysconf("SC_CLK_TCK")
    spent = sum(sum(map(int, fields[11:15])) for pid, fields in _stat_of_all() if pid in wanted)
    return spent / ticks


def memory_mb(pids: list[int]) -> float:
    """Sum the proportional set size of processes: what they share counts once."""
    total_kb = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue  # ended meanwhile
        total_kb += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total_kb / 1024


@contextmanager
def watched_memory(pids: Callable[[], list[int]]) -> Iterator[list[float]]:
    """Sample the memory of processes meanwhile, in MB; the list is complete at the end."""
    ended = threading.Event()
    samples: list[float] = []

    def sample() -> None:
        while not ended.wait(_SAMPLE_EVERY_S):
            samples.append(memory_mb(pids()))

    watcher = threading.Thread(target=sample, daemon=True)
    watcher.start()
    try:
        yield samples
    finally:
        ended.set()
        watcher.join()
        samples.append(memory_mb(pids()))


def _stat_of_all() -> list[tuple[int, list[str]]]:
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
