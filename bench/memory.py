"""How much memory a process has taken at most."""

from collections.abc import Iterable
from pathlib import Path


def peak_mb(pids: Iterable[int | str] = ("self",)) -> float:
    """Sum the greatest resident sizes of processes, in MiB; default: of this one.

    getrusage would count for a child what its parent had taken before it.
    """
    peaks = []
    for pid in pids:
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        peaks += [int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM")]
    return sum(peaks)
