"""What the command line of ``evaluate`` means: tables, bundles, thresholds, splits."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import typer

from common.errors import ConfigurationError, TrainingDataError
from firstread.naming_bundles import named_bundle
from model.bundles import Bundle
from model.evaluation.prediction_table import PredictionTable, read_predictions
from model.evaluation.report import Threshold
from model.training.completing import write_evaluated
from model.training.evaluation_job import Split, thresholds_of
from model.training.manifest_predictions import predict_rows
from model.training.manifests import read_manifest


def read_named(text: str) -> PredictionTable:
    """Read "NAME=PATH" or "PATH"; without a name the table is called as its file."""
    name, equals, path = text.partition("=")
    if not equals or Path(text).exists():
        return read_predictions(Path(text))
    return read_predictions(Path(path), name)


def read_thresholds(texts: Sequence[str]) -> tuple[Threshold, ...]:
    """Read "NAME=0.4" or "0.4".

    Raises:
        ConfigurationError: not a probability between 0 and 1.
    """
    thresholds = []
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            probability = float(number)
        except ValueError:
            probability = -1.0
        if not 0 < probability < 1:
            raise ConfigurationError(f"--threshold {text}: write NAME=0.4, a number within 0 and 1")
        thresholds.append(Threshold(name=name or f"{probability:g}", probability=probability))
    return tuple(thresholds)


def read_split(text: str, *, look_at_test: bool) -> Split:
    """Choose the split; test must be asked for by its own option.

    Raises:
        ConfigurationError: an unknown split, or test without that option.
    """
    if look_at_test:
        return "test"
    names: dict[str, Literal["train", "val", ""]] = {"train": "train", "val": "val", "none": ""}
    if text == "test":
        raise ConfigurationError(
            "test is looked at only with --look-at-test, and every look logged"
        )
    if text not in names:
        raise ConfigurationError(f"--split {text}: there are train, val and none")
    return names[text]


def predict_with(
    reference: str, manifest: Path | None, split: Split, device: str
) -> tuple[PredictionTable, tuple[Threshold, ...]]:
    """Predict the images of one split with a bundle; give its operating points too.

    Raises:
        ConfigurationError: no manifest was named.
        TrainingDataError: the manifest has no such rows.
    """
    if manifest is None:
        raise ConfigurationError("--bundle predicts the images of a manifest: name --manifest too")
    bundle = named_bundle(reference)
    rows = read_manifest(manifest).of(split)
    if not rows:
        raise TrainingDataError(f"{manifest} has no row of split {split or 'none'}")
    table = predict_rows(rows, bundle, device, lambda line: typer.echo(line, err=True))
    return table, thresholds_of(bundle)


def complete_with(
    reference: str, table: PredictionTable, out: Path, manifest: Path | None
) -> Bundle:
    """Write a bundle anew with what it reached on test.

    Raises:
        BundleError: it has no calibrator or no operating point yet.
        ConfigurationError: the folder holds a bundle already.
    """
    bundle = named_bundle(reference)
    fingerprint = read_manifest(manifest).fingerprint if manifest else ""
    name = f"{manifest.stem if manifest else table.name} test"
    return write_evaluated(bundle, table, out, name=name, manifest_sha256=fingerprint)
