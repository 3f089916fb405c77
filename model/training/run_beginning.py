"""How a run on train, watched on val, begins: what it needs, what it was asked, if it is over."""

from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic import BaseModel

from common.errors import TrainingDataError
from model.bundles import Bundle
from model.training.processes import Processes
from model.training.run_record import settle_choices, write_run_record

RESULT = "result.json"


def require_both_labels(where: Path, split: str, labels: Iterable[bool]) -> None:
    """Refuse a split whose rows are all of one label.

    Raises:
        TrainingDataError: they are; the message names file and split.
    """
    if set(labels) != {False, True}:
        raise TrainingDataError(f"{where}: split {split} needs rows of both labels")


def described_data(
    manifest_sha256: str, bundle: Bundle, *, train_images: int, val_images: int
) -> dict[str, object]:
    """Say what a run is trained on and where it starts."""
    return {
        "manifest_sha256": manifest_sha256,
        "start": f"{bundle.name}-{bundle.version}",
        "start_sha256": bundle.sha256,
        "train_images": train_images,
        "val_images": val_images,
    }


def begin_run(
    out: Path,
    config: BaseModel,
    data: dict[str, object],
    processes: Processes,
    say: Callable[[str], None],
) -> dict[str, object] | None:
    """Settle the choices, and give the run's record; None if ``out`` is finished already.

    Every process calls it; the first writes and has the record, the others' is empty.

    Raises:
        ConfigurationError: ``out`` was begun with other choices.
    """
    if processes.rank == 0:
        settle_choices(out, {"config": config.model_dump(mode="json"), "data": data})
    processes.wait()
    if (out / RESULT).exists():
        say(f"{out} is finished already")
        return None
    return write_run_record(out, config, data) if processes.rank == 0 else {}
