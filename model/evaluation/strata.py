"""Sort cases by what is known of them: source, sex, age band, view, or any other column."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.evaluation.prediction_table import PredictionTable

USUAL = ("dataset", "source", "sex", "age", "view")
AGE_EDGES_YEARS = (18, 40, 60, 80)
UNKNOWN = "unknown"


def usual_columns(table: PredictionTable) -> tuple[str, ...]:
    """Name the columns of a table that results are usually sorted by."""
    return tuple(name for name in USUAL if name in table.columns)


def strata_of(table: PredictionTable, column: str) -> dict[str, NDArray[np.bool_]]:
    """Give a mask (N,) for each value of a column, in order; ages become bands.

    Raises:
        KeyError: there is no such column.
    """
    values = table.columns[column]
    if column == "age":
        values = np.array([age_band(text) for text in values])
        order = [*_band_names(AGE_EDGES_YEARS), UNKNOWN]
    else:
        values = np.array([text.strip() or UNKNOWN for text in values])
        order = sorted(set(values.tolist()), key=lambda text: (text == UNKNOWN, text))
    return {name: values == name for name in order if (values == name).any()}


def age_band(text: str, edges: Sequence[int] = AGE_EDGES_YEARS) -> str:
    """Name the band of an age in years, as a number or as DICOM writes it ("054Y")."""
    try:
        age = float(text.strip().removesuffix("Y"))
    except ValueError:
        return UNKNOWN
    if not math.isfinite(age) or age < 0:
        return UNKNOWN
    return _band_names(edges)[sum(age >= edge for edge in edges)]


def _band_names(edges: Sequence[int]) -> list[str]:
    between = [f"{low} to {high - 1}" for low, high in itertools.pairwise(edges)]
    return [f"under {edges[0]}", *between, f"{edges[-1]} and over"]
