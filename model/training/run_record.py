"""What a training run was: choices, data, code and versions, written beside its result."""

import json
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel

RECORD = "run.json"
PACKAGES = ("torch", "timm", "numpy", "opencv-python-headless", "safetensors")


def write_run_record(
    folder: Path, config: BaseModel, data: dict[str, object], name: str = RECORD
) -> dict[str, object]:
    """Write and return the record of a run; ``data`` says what it was trained on.

    A run that is resumed keeps the records of its earlier starts under ``earlier_starts``: the
    choices may have been changed in between.
    """
    path = folder / name
    earlier = json.loads(path.read_text()) if path.exists() else None
    record: dict[str, object] = {
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": config.model_dump(mode="json"),
        "data": data,
        "commit": commit_of_code(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {package: version(package) for package in PACKAGES},
    }
    if earlier is not None:
        record["earlier_starts"] = [*earlier.pop("earlier_starts", []), earlier]
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n")
    return record


def commit_of_code() -> str:
    """Name the commit of the code, or say that it runs outside a checkout."""
    here = Path(__file__).parent
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40"],
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() or "not a checkout"
