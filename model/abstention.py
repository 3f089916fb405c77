"""When to give no opinion: class-conditional conformal prediction; part of a bundle, no torch.

Letters: n_y cases of class y on which the limits were set.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field


class ConformalAbstention(BaseModel):
    """Which classes a score does not exclude; no opinion where that is both or none.

    Of new abnormal images at most ``alpha`` are excluded from abnormal, and so for the others,
    whatever the share of either: the promise is kept within each class, by exact counting and
    without trust in the calibrator. It holds on average over the draws of the cases that set it,
    for images like those. A limit that is None excludes nothing: there were too few cases.

    Source: Vovk, Gammerman and Shafer 2005, section 4.5 (Mondrian, label-conditional); split
        conformal, Papadopoulos et al. 2002.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    alpha: float = Field(gt=0, lt=1)
    abnormal_from: float | None = Field(description="a lower raw score excludes abnormal")
    not_abnormal_to: float | None = Field(description="a higher raw score excludes the other")
    abnormal: int = Field(ge=1, description="cases that set the limit")
    not_abnormal: int = Field(ge=1, description="cases that set the limit")
    chosen_on: str

    def prediction_set(self, score: float) -> tuple[bool, bool]:
        """Say whether abnormal, and whether not abnormal, cannot be excluded."""
        may_be_abnormal = self.abnormal_from is None or score >= self.abnormal_from
        may_be_other = self.not_abnormal_to is None or score <= self.not_abnormal_to
        return may_be_abnormal, may_be_other

    def abstains(self, score: float) -> bool:
        """Say whether the prediction set holds both classes or none."""
        abnormal, other = self.prediction_set(score)
        return abnormal == other


def conformal_abstention(
    scores: ArrayLike, labels: ArrayLike, alpha: float, chosen_on: str
) -> ConformalAbstention:
    """Set the limits on cases that nothing else was fitted to.

    The limit of a class is its k-th most unusual score, k = floor(alpha (n_y + 1)): a new case is
    as likely to take any of the n_y + 1 places, and one of the first k with chance at most alpha.
    """
    x, y = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    abnormal, other = np.sort(x[y]), np.sort(x[~y])
    return ConformalAbstention(
        alpha=alpha,
        abnormal_from=_limit(abnormal, alpha),
        not_abnormal_to=_limit(other[::-1], alpha),
        abnormal=len(abnormal),
        not_abnormal=len(other),
        chosen_on=chosen_on,
    )


def _limit(most_unusual_first: NDArray[np.float64], alpha: float) -> float | None:
    """Give the last score that is kept: a new one beyond it has chance at most alpha."""
    excluded = math.floor(alpha * (len(most_unusual_first) + 1) + 1e-9)
    return float(most_unusual_first[excluded - 1]) if excluded else None
