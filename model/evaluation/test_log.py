"""The log of every look at test cases: a figure that was looked at often is no longer a test."""

import csv
from datetime import UTC, datetime
from pathlib import Path

from model.evaluation.report import Figures, Report

COLUMNS = (
    *("date", "bundle", "weights_sha256", "cases", "abnormal", "not_abnormal"),
    *("auc", "auc_low", "auc_high", "brier", "ece", "commit"),
)


def log_test(path: Path, report: Report, data: str) -> int:
    """Append a line for each model of a report, over all its cases; give the number of lines.

    ``data`` names what the cases come from.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        for model in report.models:
            seen = {"bundle": model.name, "weights_sha256": model.sha256[:16], "cases": data}
            figures = _figures(model.overall)
            date = datetime.now(UTC).date()
            writer.writerow({"date": date, "commit": report.commit, **seen, **figures})
    return len(report.models)


def _figures(overall: Figures) -> dict[str, object]:
    area, calibration = overall.auc, overall.calibration
    figures = {
        "auc": area and area.value,
        "auc_low": area and area.low,
        "auc_high": area and area.high,
        "brier": calibration and calibration.brier.value,
        "ece": calibration and calibration.expected_error,
    }
    return {
        "abnormal": overall.abnormal,
        "not_abnormal": overall.cases - overall.abnormal,
        **{name: "" if value is None else f"{value:.4f}" for name, value in figures.items()},
    }
