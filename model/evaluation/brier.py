"""Where a Brier score comes from: miscalibration, separation, and the cases themselves."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from model.evaluation.reliability import BINS


class BrierDecomposition(NamedTuple):
    """``brier = reliability - resolution + uncertainty + within_bins``, exactly.

    Reliability is 0 where said and seen agree in every bin, and lower is better. Resolution is
    how far the bins' shares of abnormal lie from the share of all, and higher is better.
    Uncertainty is the cases' own, ``prevalence * (1 - prevalence)``. What is left, within bins,
    is there because probabilities differ inside one bin.
    """

    brier: float
    reliability: float
    resolution: float
    uncertainty: float
    within_bins: float


def decompose_brier(
    labels: ArrayLike, probabilities: ArrayLike, bins: int = BINS
) -> BrierDecomposition:
    """Decompose over bins of equal size, as in the reliability diagram.

    Source: Murphy 1973; Stephenson, Coelho and Jolliffe 2008 for what stays within bins.
    """
    y = np.asarray(labels, dtype=np.float64)
    p = np.asarray(probabilities, dtype=np.float64)
    prevalence = y.mean()
    reliability = resolution = 0.0
    for rows in np.array_split(np.argsort(p, kind="stable"), bins):
        if len(rows):
            reliability += len(rows) * (p[rows].mean() - y[rows].mean()) ** 2 / len(y)
            resolution += len(rows) * (y[rows].mean() - prevalence) ** 2 / len(y)
    brier = float(np.mean((p - y) ** 2))
    uncertainty = float(prevalence * (1 - prevalence))
    within = brier - float(reliability - resolution) - uncertainty
    return BrierDecomposition(brier, float(reliability), float(resolution), uncertainty, within)
