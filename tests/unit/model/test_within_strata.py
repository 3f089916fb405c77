"""Areas within strata: what the stratum gives away counts for nothing."""

import numpy as np
import pytest

from model.evaluation.discrimination import auc, paired_auc_difference
from model.evaluation.within_strata import auc_within, paired_difference_within

GENERATOR = np.random.default_rng(5)
LABELS = GENERATOR.random(80) < 0.5
FIRST = GENERATOR.normal(size=80) + LABELS
SECOND = GENERATOR.normal(size=80)
STRATA = np.repeat(["AP", "PA"], 40)


def test_in_one_stratum_it_is_the_plain_area_and_the_plain_comparison() -> None:
    alone = np.full(80, "AP")

    assert auc_within(LABELS, FIRST, alone) == pytest.approx(auc(LABELS, FIRST))
    assert paired_difference_within(LABELS, FIRST, SECOND, alone) == pytest.approx(
        paired_auc_difference(LABELS, FIRST, SECOND)
    )


def test_a_score_that_knows_only_the_stratum_is_worth_a_half() -> None:
    knows_the_view = (STRATA == "PA").astype(float)
    labels = knows_the_view == (GENERATOR.random(80) < 0.9)

    assert auc(labels, knows_the_view) > 0.8
    assert auc_within(labels, knows_the_view, STRATA) == 0.5


def test_a_shift_of_one_stratum_changes_nothing() -> None:
    shifted = FIRST + 5 * (STRATA == "PA")

    assert auc_within(LABELS, shifted, STRATA) == pytest.approx(auc_within(LABELS, FIRST, STRATA))
    same = paired_difference_within(LABELS, shifted, FIRST, STRATA)
    assert (same.difference, same.p_value) == (0.0, 1.0)


def test_a_stratum_weighs_by_its_pairs_and_one_of_a_single_class_for_nothing() -> None:
    labels = [1, 0, 1, 1, 0, 0, 1]
    scores = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 9.0]
    strata = ["a", "a", "b", "b", "b", "b", "c"]

    assert auc_within(labels, scores, strata) == pytest.approx(1 / 5)
    with pytest.raises(ValueError, match="both classes"):
        auc_within([1, 1], [0.0, 1.0], ["a", "a"])


def test_its_error_is_what_resampling_within_strata_shows() -> None:
    found = paired_difference_within(LABELS, FIRST, SECOND, STRATA)
    cells = [
        np.flatnonzero((stratum == STRATA) & (label == LABELS))
        for stratum in ("AP", "PA")
        for label in (False, True)
    ]
    drawn = []
    for _ in range(400):
        rows = np.concatenate([GENERATOR.choice(cell, len(cell)) for cell in cells])
        one, other = (auc_within(LABELS[rows], s[rows], STRATA[rows]) for s in (FIRST, SECOND))
        drawn.append(one - other)

    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(np.std(drawn), rel=0.2)
