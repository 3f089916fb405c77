"""A table of predictions: what one model says of each image, beside what is known of the image.

A CSV file with the columns of a manifest, and ``score`` and ``probability``. The probability is
empty where nothing was calibrated. A bundle's table says with ``bundle_sha256`` whose scores they
are, and with ``abstained`` on which images it gives no opinion. Letters of shapes: N images.
"""

import csv
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.errors import TrainingDataError

REQUIRED = ("file", "label", "group", "split", "score", "probability")
ABSTAINED, SCORED_BY = "abstained", "bundle_sha256"


@dataclass(frozen=True)
class PredictionTable:
    """What one model says of N images; every array has that length.

    ``probabilities`` is None if any image has none. ``sha256`` is that of the file, or of the
    bundle that predicted; ``bundle_sha256`` is that bundle's even after reading from a file, and
    empty where no bundle is known. ``abstained`` is None where the model always has an opinion.
    """

    name: str
    files: tuple[str, ...]
    labels: NDArray[np.bool_]
    groups: NDArray[np.str_]
    splits: NDArray[np.str_]
    scores: NDArray[np.float64]
    probabilities: NDArray[np.float64] | None
    columns: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)
    sha256: str = ""
    bundle_sha256: str = ""
    abstained: NDArray[np.bool_] | None = None

    def take(self, rows: ArrayLike) -> Self:
        """Give the same table with these rows only, numbers or a mask."""
        chosen = np.arange(len(self.files))[np.asarray(rows)]
        p = self.probabilities
        return type(self)(
            name=self.name,
            files=tuple(self.files[row] for row in chosen),
            labels=self.labels[chosen],
            groups=self.groups[chosen],
            splits=self.splits[chosen],
            scores=self.scores[chosen],
            probabilities=None if p is None else p[chosen],
            columns={name: values[chosen] for name, values in self.columns.items()},
            sha256=self.sha256,
            bundle_sha256=self.bundle_sha256,
            abstained=None if self.abstained is None else self.abstained[chosen],
        )


def read_predictions(path: Path, name: str = "") -> PredictionTable:
    """Read and check a table of predictions; ``name`` is the file's own unless given.

    Raises:
        TrainingDataError: it is missing or cannot be understood; the message names line and column.
    """
    try:
        content = path.read_bytes()
        reader = csv.DictReader(content.decode("utf-8-sig").splitlines(), strict=True)
        rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingDataError(f"{path} cannot be read as a table: {error}") from error
    missing = [column for column in REQUIRED if column not in (reader.fieldnames or ())]
    if missing:
        raise TrainingDataError(
            f"{path}, line 1: no column {', '.join(missing)}; predictions need "
            f"{', '.join(REQUIRED)}, as `firstread train transfer` and `finetune` write them"
        )
    if not rows:
        raise TrainingDataError(f"{path} has a header and no rows")
    for line, row in rows:
        if None in row or None in row.values():
            raise TrainingDataError(f"{path}, line {line}: not as many values as in line 1")
        if row["label"] not in ("0", "1"):
            raise TrainingDataError(f"{path}, line {line}, column label: neither 0 nor 1")
    probabilities = np.array([_number(path, *row, "probability") for row in rows])
    outside = np.flatnonzero((probabilities < 0) | (probabilities > 1))
    if len(outside):
        line = rows[outside[0]][0]
        raise TrainingDataError(f"{path}, line {line}, column probability: not between 0 and 1")
    scores = np.array([_number(path, *row, "score") for row in rows])
    if not np.isfinite(scores).all():
        line = rows[int(np.flatnonzero(~np.isfinite(scores))[0])][0]
        raise TrainingDataError(f"{path}, line {line}, column score: no finite number")
    own = (*REQUIRED, ABSTAINED, SCORED_BY)
    further = [column for column in reader.fieldnames or () if column not in own]
    return PredictionTable(
        name=name or path.stem,
        files=tuple(row["file"] for _, row in rows),
        labels=np.array([row["label"] == "1" for _, row in rows]),
        groups=np.array([row["group"] for _, row in rows]),
        splits=np.array([row["split"] for _, row in rows]),
        scores=scores,
        probabilities=None if np.isnan(probabilities).any() else probabilities,
        columns={column: np.array([row[column] for _, row in rows]) for column in further},
        sha256=hashlib.sha256(content).hexdigest(),
        bundle_sha256=_scored_by(path, rows),
        abstained=_abstained(path, rows),
    )


def write_predictions(path: Path, table: PredictionTable) -> None:
    """Write a table of predictions; numbers are written so that they read back the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        silent, scored_by = table.abstained, table.bundle_sha256
        own = [ABSTAINED] * (silent is not None) + [SCORED_BY] * bool(scored_by)
        writer.writerow([*REQUIRED, *own, *table.columns])
        p = table.probabilities
        for row, name in enumerate(table.files):
            probability = "" if p is None else repr(float(p[row]))
            fixed = [name, int(table.labels[row]), table.groups[row], table.splits[row]]
            further = [values[row] for values in table.columns.values()]
            of_bundle = [] if silent is None else [int(silent[row])]
            of_bundle += [scored_by] if scored_by else []
            numbers = [repr(float(table.scores[row])), probability]
            writer.writerow([*fixed, *numbers, *of_bundle, *further])
    partial.replace(path)


def share_cases(tables: Sequence[PredictionTable]) -> list[PredictionTable]:
    """Bring tables to the images that all of them hold, in the order of the first.

    Images are the same if their files are; where the folders differ, if their files' names are.

    Raises:
        TrainingDataError: no image is in all of them, or two tables disagree on a label.
    """
    keys = [list(table.files) for table in tables]
    common = set(keys[0]).intersection(*keys[1:])
    if not common:
        keys = [[Path(file).name for file in table.files] for table in tables]
        common = set(keys[0]).intersection(*keys[1:])
    if not common:
        raise TrainingDataError(
            "the tables have no image in common; compare models on one set of cases"
        )
    shared = []
    for table, key in zip(tables, keys, strict=True):
        place = _places(table.name, key)
        shared.append(table.take([place[name] for name in keys[0] if name in common]))
    for table in shared[1:]:
        differing = np.flatnonzero(table.labels != shared[0].labels)
        if len(differing):
            raise TrainingDataError(
                f"{table.name} and {shared[0].name} disagree on the label of "
                f"{table.files[differing[0]]}; make both from one manifest"
            )
    return shared


def _scored_by(path: Path, rows: Sequence[tuple[int, dict[str, str]]]) -> str:
    """Give the one bundle that a table names; "" if it has no such column."""
    named = {row.get(SCORED_BY, "") for _, row in rows}
    if len(named) > 1:
        raise TrainingDataError(f"{path}, column {SCORED_BY}: scores of {len(named)} bundles")
    return named.pop()


def _abstained(path: Path, rows: Sequence[tuple[int, dict[str, str]]]) -> NDArray[np.bool_] | None:
    if ABSTAINED not in rows[0][1]:
        return None
    for line, row in rows:
        if row[ABSTAINED] not in ("0", "1"):
            raise TrainingDataError(f"{path}, line {line}, column {ABSTAINED}: neither 0 nor 1")
    return np.array([row[ABSTAINED] == "1" for _, row in rows])


def _places(name: str, keys: Iterable[str]) -> dict[str, int]:
    place: dict[str, int] = {}
    for row, key in enumerate(keys):
        if place.setdefault(key, row) != row:
            raise TrainingDataError(f"{name}: {key} is in two rows")
    return place


def _number(path: Path, line: int, row: dict[str, str], column: str) -> float:
    if not row[column].strip():
        return math.nan
    try:
        return float(row[column])
    except ValueError as error:
        raise TrainingDataError(f"{path}, line {line}, column {column}: no number") from error
