"""Turn a score into a probability that means what it says; part of a bundle, no torch.

A calibrator is data: a few numbers, and the prevalence among the cases that they were fitted on.
``model.calibration`` fits them.
"""

import math
from bisect import bisect_right
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

FARTHEST_SCORE = 1e9


class Calibrator(BaseModel):
    """What every calibrator has; the probability never falls where the score rises.

    The probability holds where the share of abnormal images is ``prevalence``, and elsewhere not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prevalence: float = Field(gt=0, lt=1)
    cases: int = Field(ge=1)
    log_loss: float = Field(description="by cross-validation on the cases fitted on")
    losses: dict[str, float] = Field(default={}, description="of each kind that was tried")
    fitted_on: str

    def calibrate(self, score: float) -> float:
        """Give the probability of a raw score."""
        raise NotImplementedError

    def score_at(self, probability: float) -> float:
        """Give the least raw score whose probability is at least ``probability``, in (0, 1).

        Source: bisection; it ends at neighbouring floating-point numbers.
        """
        low, high = -FARTHEST_SCORE, FARTHEST_SCORE
        if self.calibrate(high) < probability:
            return math.inf
        while True:
            middle = (low + high) / 2
            if middle in (low, high):
                return high
            low, high = (low, middle) if self.calibrate(middle) >= probability else (middle, high)


class LogisticCalibrator(Calibrator):
    """``probability = 1 / (1 + exp(-(slope * score + intercept)))``, strictly rising.

    ``temperature`` fits the slope alone and leaves the intercept 0; ``platt`` fits both.
    """

    method: Literal["temperature", "platt"]
    slope: float = Field(gt=0)
    intercept: float = 0.0

    def calibrate(self, score: float) -> float:
        """Give the probability of a raw score."""
        return logistic(self.slope * score + self.intercept)

    def score_at(self, probability: float) -> float:
        """Give the raw score that is calibrated to ``probability``, in (0, 1)."""
        return (math.log(probability / (1 - probability)) - self.intercept) / self.slope


class BetaCalibrator(Calibrator):
    """``log odds = a * ln(s) - b * ln(1 - s) + c`` with s the logistic of the score.

    It bends either end of the scale apart from the other: a where s is small, b where it is large.

    Source: Kull, Silva Filho and Flach 2017, Beta calibration, equation 10.
    """

    method: Literal["beta"] = "beta"
    a: float = Field(ge=0)
    b: float = Field(ge=0)
    c: float

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.a + self.b == 0:
            raise ValueError("a and b are both 0: every score has the same probability")
        return self

    def calibrate(self, score: float) -> float:
        """Give the probability of a raw score."""
        x = min(max(score, -FARTHEST_SCORE), FARTHEST_SCORE)
        return logistic(self.b * softplus(x) - self.a * softplus(-x) + self.c)


class IsotonicCalibrator(Calibrator):
    """A line through knots, flat beyond the first and the last; rising, but not strictly.

    No probability is 0 or 1: the least and the greatest are what Laplace's rule leaves to chance.

    Source: Zadrozny and Elkan 2002.
    """

    method: Literal["isotonic"] = "isotonic"
    scores: tuple[float, ...] = Field(min_length=2)
    probabilities: tuple[float, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _rising(self) -> Self:
        x, y = self.scores, self.probabilities
        if len(x) != len(y) or not y[0] > 0 or not y[-1] < 1:
            raise ValueError("scores and probabilities in (0, 1) must come in pairs")
        rises = all(x[i] < x[i + 1] and y[i] <= y[i + 1] for i in range(len(x) - 1))
        if not rises or y[0] == y[-1]:
            raise ValueError("the knots do not rise")
        return self

    def calibrate(self, score: float) -> float:
        """Give the probability of a raw score."""
        x, y = self.scores, self.probabilities
        right = bisect_right(x, score)
        if right == 0:
            return y[0]
        if right == len(x):
            return y[-1]
        share = (score - x[right - 1]) / (x[right] - x[right - 1])
        return min(y[right - 1] + share * (y[right] - y[right - 1]), y[right])


AnyCalibrator = Annotated[
    LogisticCalibrator | BetaCalibrator | IsotonicCalibrator, Field(discriminator="method")
]


def logistic(value: float) -> float:
    """Give 1 / (1 + exp(-value)) without overflow."""
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    return math.exp(value) / (1 + math.exp(value))


def softplus(value: float) -> float:
    """Give ln(1 + exp(value)) without overflow."""
    return max(value, 0.0) + math.log1p(math.exp(-abs(value)))
