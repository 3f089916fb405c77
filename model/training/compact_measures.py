"""What is measured of the compact model, group by group, and against what."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.calibrators import AnyCalibrator
from model.evaluation.discrimination import auc
from model.evaluation.evaluate import evaluate
from model.evaluation.reliability import ece_under_perfect_calibration
from model.evaluation.source_readability import source_readability
from model.measured import Evaluation
from model.training.cases import Case, of_dataset
from model.training.predictions import Predicted

HEADLINE = "NIH test, adults"
SUBGROUP_AGE_YEARS = 50
USED_VAL = "val also set calibration and thresholds"


@dataclass(frozen=True)
class Scored:
    """Held-out cases with what the network says of them."""

    cases: list[Case]
    predicted: Predicted

    def rows(self, datasets: set[str], splits: set[str], *, adult: bool | None) -> NDArray[np.intp]:
        """Number the cases of these data sets and splits."""
        return of_dataset(self.cases, datasets, splits, adult=adult)

    def labels(self, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Give the truth of some rows."""
        return np.array([self.cases[row].abnormal for row in rows], dtype=bool)


def evaluations_of(
    scored: Scored, calibrator: AnyCalibrator, threshold: float
) -> tuple[Evaluation, ...]:
    """Measure every held-out group apart; a pooled figure over sources would mean nothing."""
    groups: list[tuple[str, set[str], set[str], bool | None, str]] = [
        (HEADLINE, {"nih_cxr14"}, {"test"}, True, "headline"),
        ("NIH test, all ages", {"nih_cxr14"}, {"test"}, None, ""),
        ("NIH val, adults", {"nih_cxr14"}, {"val"}, True, USED_VAL),
        ("NIH val and test, adults", {"nih_cxr14"}, {"val", "test"}, True, USED_VAL),
        ("RSNA normals test, adults", {"crd_normal"}, {"test"}, True, "normals only"),
        ("Hannover COVID-19 test, adults", {"hannover_covid"}, {"test"}, True, "abnormal only"),
        ("Kermany test, children", {"kermany_pediatric"}, {"test"}, False, "outside intended use"),
    ]
    rows = []
    for name, datasets, splits, adult, note in groups:
        numbers = scored.rows(datasets, splits, adult=adult)
        rows.append(
            evaluate(
                name,
                scored.predicted.score[numbers],
                scored.labels(numbers),
                calibrator,
                threshold,
                calibrated_on="val" in splits,
                note=note,
            )
        )
    for name, numbers in _subgroups(scored).items():
        labels = scored.labels(numbers)
        score = scored.predicted.score[numbers]
        figures = evaluate(
            name, score, labels, calibrator, threshold, calibrated_on=True, note=USED_VAL
        )
        rows.append(figures)
    return tuple(rows)


def _subgroups(scored: Scored) -> dict[str, NDArray[np.intp]]:
    """Number the NIH adults of val and test by sex, view and age."""
    adults = scored.rows({"nih_cxr14"}, {"val", "test"}, adult=True)
    belongs: dict[str, Callable[[Case], bool]] = {
        "women": lambda case: case.sex == "F",
        "men": lambda case: case.sex == "M",
        "AP": lambda case: case.view == "AP",
        "PA": lambda case: case.view == "PA",
        "under 50 years": lambda case: case.age is not None and case.age < SUBGROUP_AGE_YEARS,
        "from 50 years": lambda case: case.age is not None and case.age >= SUBGROUP_AGE_YEARS,
    }
    return {
        f"NIH val and test, adults, {name}": np.array(
            [row for row in adults if of(scored.cases[row])], dtype=np.intp
        )
        for name, of in belongs.items()
    }


def shortcuts(scored: Scored, evaluations: tuple[Evaluation, ...]) -> dict[str, float]:
    """Measure what no set of cases tells alone: shortcuts, and whether INSIGHT agrees."""
    adults = scored.rows({"nih_cxr14", "crd_normal"}, {"val", "test"}, adult=True)
    normal = adults[~scored.labels(adults)]
    from_nih = np.array([scored.cases[row].dataset == "nih_cxr14" for row in normal])
    nih_test = scored.rows({"nih_cxr14"}, {"test"}, adult=True)
    insight = auc(scored.labels(nih_test), scored.predicted.insight_probability[nih_test])
    areas = {row.name: row.auc for row in evaluations}
    both = [areas["NIH test, all ages"] or 0.0, areas["Kermany test, children"] or 0.0]
    readable = source_readability(
        scored.predicted.embedding[normal], scored.predicted.score[normal], from_nih
    )
    return {
        "mean_auc_nih_and_kermany_test": sum(both) / 2,
        "insight_auc_nih_test_adults": insight,
        "source_auc_from_embedding": readable.from_embedding,
        "source_auc_from_score": readable.from_score,
    }


def calibration_by_chance(scored: Scored, calibrator: AnyCalibrator) -> dict[str, float]:
    """Give the calibration error that chance alone would show on the headline's cases."""
    rows = scored.rows({"nih_cxr14"}, {"test"}, adult=True)
    probabilities = [calibrator.calibrate(one) for one in scored.predicted.score[rows]]
    by_chance = ece_under_perfect_calibration(probabilities)
    return {
        "ece_by_chance_nih_test_adults": by_chance.mean,
        "ece_by_chance_low": by_chance.low,
        "ece_by_chance_high": by_chance.high,
    }
