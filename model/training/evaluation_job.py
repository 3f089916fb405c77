"""Measure tables of predictions beside one another and write the report: a page and its numbers."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np

from common.errors import TrainingDataError
from model.bundles import Bundle
from model.evaluation.bootstrap import rows_of_groups
from model.evaluation.measuring import compare, flag_everyone, measure_model
from model.evaluation.prediction_table import PredictionTable, share_cases
from model.evaluation.report import CasesSeen, Report, Threshold
from model.evaluation.report_page import render_report
from model.evaluation.strata import usual_columns
from model.training.run_record import commit_of_code

PAGE, NUMBERS = "report.html", "report.json"

Split = Literal["train", "val", "test", ""]


def evaluate_tables(
    tables: Sequence[PredictionTable],
    split: Split,
    thresholds: Mapping[str, Sequence[Threshold]],
    *,
    title: str = "Evaluation",
    columns: Sequence[str] | None = None,
    seed: int = 0,
) -> Report:
    """Measure every model on the images of one split that all tables hold.

    Args:
        tables: One a model, of different names.
        split: Other rows are not looked at.
        thresholds: Operating points by the name of the table.
        title: Of the page.
        columns: To sort by; None takes the usual ones that are there.
        seed: Of the bootstrap.

    Raises:
        TrainingDataError: no image is left, or a column is not there.
    """
    _require_different_names(tables)
    of_split = [_only(table, split) for table in tables]
    shared = share_cases(of_split)
    first = shared[0]
    chosen = usual_columns(first) if columns is None else tuple(columns)
    for column in chosen:
        if column not in first.columns:
            there = ", ".join(first.columns) or "none"
            raise TrainingDataError(f"{first.name} has no column {column!r}; there are: {there}")
    return Report(
        title=title,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=commit_of_code(),
        cases=CasesSeen(
            split=split,
            cases=len(first.files),
            abnormal=int(first.labels.sum()),
            groups=len(rows_of_groups(first.groups)),
            left_out=max(len(table.files) for table in of_split) - len(first.files),
        ),
        flag_everyone=flag_everyone(first),
        models=tuple(
            measure_model(table, thresholds.get(table.name, ()), chosen, seed=seed)
            for table in shared
        ),
        comparisons=compare(shared, seed=seed),
    )


def write_report(report: Report, out: Path) -> Path:
    """Write the page and its numbers into a folder; give the page's path."""
    out.mkdir(parents=True, exist_ok=True)
    (out / NUMBERS).write_text(report.model_dump_json(indent=2) + "\n")
    page = out / PAGE
    page.write_text(render_report(report), encoding="utf-8")
    return page


def thresholds_of(bundle: Bundle) -> tuple[Threshold, ...]:
    """Give a bundle's operating points as thresholds."""
    return tuple(
        Threshold(name=point.name, probability=point.threshold) for point in bundle.operating_points
    )


def _only(table: PredictionTable, split: Split) -> PredictionTable:
    rows = np.flatnonzero(table.splits == split)
    if not len(rows):
        there = sorted({one or "none" for one in table.splits.tolist()})
        raise TrainingDataError(
            f"{table.name} has no row of split {split or 'none'}; it has {', '.join(there)}"
            + ("; to look at test, say --look-at-test" if "test" in there else "")
        )
    return table.take(rows)


def _require_different_names(tables: Sequence[PredictionTable]) -> None:
    names = [table.name for table in tables]
    for name in names:
        if names.count(name) > 1:
            raise TrainingDataError(
                f"two tables are called {name}; name them: NAME={name}.csv OTHER={name}.csv"
            )
