"""A manifest: which images there are, what is known of each, and which split it belongs to.

A CSV file with a header. ``file``, ``label``, ``group`` and ``split`` must be there; any further
column is kept, to stratify results by. Nothing here opens an image.
"""

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import TrainingDataError

REQUIRED = ("file", "label", "group", "split")
SPLITS = ("train", "val", "test", "")
LABELS = {"0": False, "1": True}


@dataclass(frozen=True)
class ManifestRow:
    """One image.

    ``label`` is True for abnormal. ``group`` is the patient, or whatever else must never be on
    both sides of a split. ``split`` "" belongs to none. ``columns`` are the further ones.
    """

    path: Path
    label: bool
    group: str
    split: str
    columns: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """The rows of a manifest in its own order; ``fingerprint`` is the SHA-256 of the file."""

    path: Path
    rows: tuple[ManifestRow, ...]
    fingerprint: str

    def of(self, split: str) -> tuple[ManifestRow, ...]:
        """Give the rows of one split."""
        return tuple(row for row in self.rows if row.split == split)


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest; relative files are looked for beside it.

    Raises:
        TrainingDataError: it is missing or cannot be understood; the message names line and
            column. Also where a group is in two splits, or a file in two rows.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise TrainingDataError(
            f"{path} cannot be read: {error.strerror}; "
            "`firstread train manifest --help` says how to make a manifest"
        ) from error
    except UnicodeDecodeError as error:
        raise TrainingDataError(f"{path} is not text in UTF-8; save it as CSV UTF-8") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    missing = [name for name in REQUIRED if name not in (reader.fieldnames or ())]
    if missing:
        raise TrainingDataError(
            f"{path}, line 1: no column {', '.join(missing)}; "
            f"a manifest needs {', '.join(REQUIRED)}"
        )
    rows: list[ManifestRow] = []
    seen_in: dict[str, tuple[str, int]] = {}
    seen_at: dict[Path, int] = {}
    for line, fields in _lines(path, reader):
        row = _row(path, line, fields)
        if (first := seen_at.setdefault(row.path, line)) != line:
            raise TrainingDataError(f"{path}, line {line}, column file: already in line {first}")
        split, first = seen_in.setdefault(row.group, (row.split, line))
        if split != row.split:
            raise TrainingDataError(
                f"{path}, line {line}, column group: {row.group!r} is in split {row.split!r} here "
                f"and in {split!r} in line {first}; a patient must stay in one split"
            )
        rows.append(row)
    if not rows:
        raise TrainingDataError(f"{path} has a header and no rows")
    return Manifest(path, tuple(rows), hashlib.sha256(content).hexdigest())


def write_manifest(path: Path, rows: Iterable[ManifestRow]) -> Manifest:
    """Write rows, files relative to the manifest where they lie under its folder; read it back."""
    every_row = list(rows)
    further = list(dict.fromkeys(name for row in every_row for name in row.columns))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*REQUIRED, *further], restval="", lineterminator="\n")
        writer.writeheader()
        for row in every_row:
            writer.writerow(
                {
                    "file": _shown(row.path, path.parent),
                    "label": int(row.label),
                    "group": row.group,
                    "split": row.split,
                    **row.columns,
                }
            )
    partial.replace(path)
    return read_manifest(path)


def _lines(path: Path, reader: "csv.DictReader[str]") -> Iterator[tuple[int, dict[str, str]]]:
    try:
        for fields in reader:
            line = reader.line_num
            if None in fields or None in fields.values():
                wanted = len(reader.fieldnames or ())
                raise TrainingDataError(f"{path}, line {line}: not {wanted} values as in line 1")
            yield line, fields
    except csv.Error as error:
        raise TrainingDataError(f"{path}, line {reader.line_num}: {error}") from error


def _row(path: Path, line: int, fields: dict[str, str]) -> ManifestRow:
    further = {name: text for name, text in fields.items() if name not in REQUIRED}
    values = {name: fields[name].strip() for name in REQUIRED}
    for name in ("file", "group"):
        if not values[name]:
            raise TrainingDataError(f"{path}, line {line}, column {name}: empty")
    if values["label"] not in LABELS:
        raise TrainingDataError(
            f"{path}, line {line}, column label: {values['label']!r} is neither 0 nor 1"
        )
    if values["split"] not in SPLITS:
        raise TrainingDataError(
            f"{path}, line {line}, column split: {values['split']!r} is none of "
            "train, val, test or empty"
        )
    return ManifestRow(
        path=path.parent / values["file"],  # an absolute file stays as it is
        label=LABELS[values["label"]],
        group=values["group"],
        split=values["split"],
        columns=further,
    )


def _shown(file: Path, folder: Path) -> str:
    absolute, base = file.absolute(), folder.absolute()
    return str(absolute.relative_to(base) if absolute.is_relative_to(base) else absolute)
