"""Would acting on the probability do more good than flagging everyone, or no one?"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

THRESHOLDS = np.linspace(0.01, 0.99, 99)


class DecisionCurve(NamedTuple):
    """Net benefit at each threshold, float (T,) each; flagging no one has net benefit 0.

    A threshold stands for a view on harm: at 0.2, one missed abnormal image is as bad as four
    needless flags.
    """

    threshold: NDArray[np.float64]
    net_benefit: NDArray[np.float64]
    flag_everyone: NDArray[np.float64]


def decision_curve(
    labels: ArrayLike, probabilities: ArrayLike, thresholds: ArrayLike = THRESHOLDS
) -> DecisionCurve:
    """Give ``hits / n - false alarms / n * t / (1 - t)`` at thresholds t in (0, 1).

    It holds at the prevalence of these cases.

    Source: Vickers and Elkin 2006, eq. 1.
    """
    y = np.asarray(labels, dtype=bool)
    t = np.asarray(thresholds, dtype=np.float64)
    flagged = np.asarray(probabilities, dtype=np.float64)[None] >= t[:, None]  # (T, N)
    odds = t / (1 - t)
    net = (flagged & y).mean(axis=1) - (flagged & ~y).mean(axis=1) * odds
    return DecisionCurve(t, net, y.mean() - (1 - y.mean()) * odds)
