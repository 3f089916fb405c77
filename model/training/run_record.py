"""What a training run was: choices, data, code and versions, written beside its result."""

import json
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel

from common.errors import ConfigurationError
from model.training.feature_store import write_whole

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
    write_whole(path, (json.dumps(record, indent=2) + "\n").encode())
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


def settle_choices(out: Path, choices: dict[str, object]) -> None:
    """Write down a run's choices, or refuse a folder that was begun with others.

    Raises:
        ConfigurationError: they differ; the message names the first that does.
    """
    path = out / "choices.json"
    text = json.dumps(choices, indent=2, sort_keys=True) + "\n"
    if path.exists() and path.read_text() != text:
        old, new = _flat(json.loads(path.read_text())), _flat(json.loads(text))
        name = next(key for key in sorted(old | new) if old.get(key) != new.get(key))
        raise ConfigurationError(
            f"{out} was begun with {name} = {old.get(name)}, now it is {new.get(name)}: "
            "choose another --out, or the same choices"
        )
    out.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode())


def _flat(value: object, name: str = "") -> dict[str, object]:
    if not isinstance(value, dict):
        return {name: value}
    parts = [_flat(one, f"{name}.{key}".lstrip(".")) for key, one in value.items()]
    return {key: one for part in parts for key, one in part.items()}
