"""Look at test by predictions that are written already, and log that it was done."""

from collections.abc import Sequence
from pathlib import Path

from model.evaluation.prediction_table import read_predictions
from model.evaluation.test_log import log_test
from model.training.evaluation_job import evaluate_tables


def look_at_tables(paths: Sequence[Path], test_log: Path, data: str) -> list[str]:
    """Measure tables of predictions on their rows of test; one line each, and one in the log.

    Raises:
        TrainingDataError: a table has no row of test.
    """
    report = evaluate_tables([read_predictions(path) for path in paths], "test", {})
    log_test(test_log, report, data, job="transfer")
    lines = []
    for model in report.models:
        area = model.overall.auc
        said = f"{area.value:.3f} ({area.low:.3f} to {area.high:.3f})" if area else "none"
        lines.append(f"test, {model.name}: AUC {said}, n {model.overall.cases}")
    return lines
