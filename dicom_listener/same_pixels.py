"""Ask a process of its own whether two stored objects show the same pixels.

The decoders are loaded there alone: the listener needs none, and each of its processes would hold
thirty megabytes of them.
"""

import subprocess
import sys
from pathlib import Path


def same_pixels(first: Path, second: Path, *, deadline_s: float, memory_bytes: int) -> bool:
    """Compare in a child process; whatever it cannot tell counts as different."""
    command = [sys.executable, "-m", "dicom_listener.pixel_comparison", str(first), str(second)]
    try:
        ended = subprocess.run(
            [*command, str(memory_bytes)],
            timeout=deadline_s,
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return False
    return ended.returncode == 0
