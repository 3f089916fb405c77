"""The log of every look at test cases: a figure that was looked at often is no longer a test."""

import csv
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from model.evaluation.report import Figures, Report

COLUMNS = (
    *("date", "bundle", "weights_sha256", "cases", "abnormal", "not_abnormal"),
    *("auc", "auc_low", "auc_high", "brier", "ece", "commit"),
    *("job", "figures"),
)
FIGURES = ("auc", "auc_low", "auc_high", "brier", "ece")


class Look(NamedTuple):
    """One look: who was looked at, on which cases, and what was seen.

    Attributes:
        job: the command that looked.
        model: a bundle's name and version, or whatever else was measured.
        sha256: of its weights; the log keeps 16 characters.
        cases: which cases of test they are, in words.
        abnormal: how many; None where that does not apply.
        not_abnormal: likewise.
        commit: of the code.
        measured: figures that have a column of their own, by its name.
        figures: whatever else was seen, in words.
    """

    job: str
    model: str
    sha256: str
    cases: str
    abnormal: int | None
    not_abnormal: int | None
    commit: str
    measured: Mapping[str, float | None] = {}
    figures: str = ""


def log_looks(path: Path, *looks: Look) -> int:
    """Append a line for each look; give their number.

    A log from before ``job`` and ``figures`` were columns gets them in its header; its lines stay
    as they are, and whoever reads them finds those two empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _begin(path)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        for look in looks:
            figures = {name: look.measured.get(name) for name in FIGURES}
            row = {
                "date": datetime.now(UTC).date(),
                "bundle": look.model,
                "weights_sha256": look.sha256[:16],
                "cases": look.cases,
                "abnormal": "" if look.abnormal is None else look.abnormal,
                "not_abnormal": "" if look.not_abnormal is None else look.not_abnormal,
                "commit": look.commit,
                "job": look.job,
                "figures": look.figures,
            }
            said = {name: "" if one is None else f"{one:.4f}" for name, one in figures.items()}
            writer.writerow({**row, **said})
    return len(looks)


def log_test(path: Path, report: Report, data: str, job: str = "evaluate") -> int:
    """Append a line for each model of a report, over all its cases; give the number of lines.

    ``data`` names what the cases come from.
    """
    looks = []
    for model in report.models:
        overall = model.overall
        abnormal, other = overall.abnormal, overall.cases - overall.abnormal
        look = Look(job, model.name, model.sha256, data, abnormal, other, report.commit)
        looks.append(look._replace(measured=_figures(overall)))
    return log_looks(path, *looks)


def _begin(path: Path) -> None:
    header = ",".join(COLUMNS)
    if not path.exists():
        path.write_text(f"{header}\n")
        return
    first, newline, rest = path.read_text().partition("\n")
    if first != header:
        path.write_text(f"{header}{newline or chr(10)}{rest}")


def _figures(overall: Figures) -> dict[str, float | None]:
    area, calibration = overall.auc, overall.calibration
    return {
        "auc": area and area.value,
        "auc_low": area and area.low,
        "auc_high": area and area.high,
        "brier": calibration and calibration.brier.value,
        "ece": calibration and calibration.expected_error,
    }
