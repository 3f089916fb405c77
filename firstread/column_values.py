"""Read options of the form COLUMN=VALUE, and tables of scores from where they may lie."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.errors import ConfigurationError, TrainingDataError

if TYPE_CHECKING:
    from model.evaluation.prediction_table import PredictionTable


def column_values(option: str, texts: list[str] | None) -> dict[str, str]:
    """Read "COLUMN=VALUE" texts.

    Raises:
        ConfigurationError: another form.
    """
    values: dict[str, str] = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigurationError(f"{option} {text}: write COLUMN=VALUE")
        values[name] = value
    return values


def read_scores(predictions: Path | None, features: Path | None) -> "PredictionTable":
    """Read scores from a table of predictions, or from a store made by a bundle with a head.

    Raises:
        ConfigurationError: neither or both were named.
        TrainingDataError: what was named cannot be read, or does not say who scored.
    """
    if (predictions is None) == (features is None):
        raise ConfigurationError("name the scores: either --features STORE or --predictions CSV")
    if predictions is not None:
        return read_own_scores(predictions)
    from model.training.feature_store import FeatureStore
    from model.training.manifest_predictions import table_of

    store = FeatureStore.open(Path(str(features)), verify=False)
    table = table_of(
        store.rows, store.scores, name=store.index.plan.bundle, sha256=store.manifest_fingerprint
    )
    return replace(table, bundle_sha256=store.bundle_sha256)


def read_own_scores(predictions: Path) -> "PredictionTable":
    """Read a bundle's scores; a table that does not say whose they are cannot be checked.

    Raises:
        TrainingDataError: it cannot be read, or names no bundle.
    """
    from model.evaluation.prediction_table import SCORED_BY, read_predictions

    table = read_predictions(predictions)
    if not table.bundle_sha256:
        raise TrainingDataError(
            f"{predictions} does not say which bundle scored it (no column {SCORED_BY}): "
            "`firstread train finetune` and `insight` write tables that do, or name --features"
        )
    return table


def only(table: "PredictionTable", split: str | None, values: dict[str, str]) -> "PredictionTable":
    """Keep the rows of one split (None: of all) that have these values.

    Raises:
        TrainingDataError: no such column, or no row is left.
    """
    kept = np.ones(len(table.files), dtype=bool) if split is None else table.splits == split
    for column, value in values.items():
        if column not in table.columns:
            there = ", ".join(table.columns) or "none"
            raise TrainingDataError(f"{table.name} has no column {column!r}; there are: {there}")
        kept = kept & (table.columns[column] == value)
    if not kept.any():
        raise TrainingDataError(f"{table.name}: no row of split {split or 'any'} with {values}")
    return table.take(kept)
