"""Write a manifest that was made from a data set, say what it holds, and keep a record of it."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import typer
from pydantic import BaseModel, ConfigDict

from common.errors import TrainingDataError
from model.training.manifests import ManifestRow, write_manifest
from model.training.run_record import write_run_record

SHOWN_MISSING = 10


class Described(Protocol):
    """What a reader of a data set gives."""

    @property
    def rows(self) -> list[ManifestRow]:
        """The images that are kept."""
        ...

    @property
    def counts(self) -> dict[str, int]:
        """How many images each rule kept or left out."""
        ...

    @property
    def missing(self) -> list[str]:
        """Files that the data set names and that are not there."""
        ...


class ManifestConfig(BaseModel):
    """What was asked for; the choices are those of the data set's reader."""

    model_config = ConfigDict(extra="allow")

    folder: str


def write_described(
    out: Path, folder: Path, made: Described, choices: Mapping[str, Any], *, allow_missing: bool
) -> None:
    """Write the manifest and its record ``<name>.run.json``; print the counts.

    Raises:
        TrainingDataError: files are missing and nobody allowed that, or nothing is left.
    """
    for name in made.missing[:SHOWN_MISSING]:
        typer.echo(f"missing: {name}", err=True)
    if made.missing and not allow_missing:
        raise TrainingDataError(
            f"{folder}: {len(made.missing)} of the images are missing; download the rest, or go on "
            "without them: --allow-missing"
        )
    if not made.rows:
        raise TrainingDataError(f"{folder}: no image is left")
    manifest = write_manifest(out, made.rows)
    per_split = Counter((row.split or "none", int(row.label)) for row in manifest.rows)
    data = {
        "manifest_sha256": manifest.fingerprint,
        "counts": made.counts,
        "missing": made.missing,
        "by split and label": {f"{split} {label}": n for (split, label), n in per_split.items()},
    }
    config = ManifestConfig.model_validate({"folder": str(folder), **choices})
    write_run_record(out.parent, config, data, name=f"{out.stem}.run.json")
    for rule, number in made.counts.items():
        typer.echo(f"{rule}: {number}")
    for split in sorted({split for split, _ in per_split}):
        groups = len({row.group for row in manifest.rows if (row.split or "none") == split})
        typer.echo(
            f"{split}: {per_split[split, 1]} abnormal, {per_split[split, 0]} not, {groups} groups"
        )
    typer.echo(f"written: {out}")
