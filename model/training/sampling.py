"""Draw training images so that the source of an image says nothing about its label."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from model.training.cases import Case

Shares = Mapping[tuple[str, bool], float]

SHARES: Shares = {
    # (group, abnormal): share of a batch. Half of each batch is abnormal.
    ("nih_cxr14", False): 0.27,
    ("nih_cxr14", True): 0.35,
    ("other_adults", False): 0.15,
    ("other_adults", True): 0.07,
    ("children", False): 0.08,
    ("children", True): 0.08,
}


def group_of(case: Case) -> str:
    """Name the group that a case is drawn with."""
    if not case.adult:
        return "children"
    return "nih_cxr14" if case.dataset == "nih_cxr14" else "other_adults"


def sampling_probabilities(cases: list[Case], shares: Shares = SHARES) -> NDArray[np.float64]:
    """Give each case its chance of being drawn next; sums to 1, over either label to a half.

    A group without cases leaves its share to the others of its label.
    """
    keys = [(group_of(case), case.abnormal) for case in cases]
    sizes = {key: keys.count(key) for key in shares}
    chances = np.array([shares[key] / sizes[key] for key in keys])
    abnormal = np.array([case.abnormal for case in cases])
    for label in (abnormal, ~abnormal):
        chances[label] /= 2 * chances[label].sum()
    return chances
