"""Everything that ``evaluate`` measures, as plain data: what the JSON beside a report holds."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from model.operating_points import Proportion


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(_Part):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


class Threshold(_Part):
    """A named probability from which an image is flagged."""

    name: str
    probability: float


class CasesSeen(_Part):
    """Which cases were measured on. ``groups`` counts patients, or what stands for them."""

    split: Literal["train", "val", "test", ""]
    cases: int
    abnormal: int
    groups: int
    left_out: int = 0


class AtThreshold(_Part):
    """What a threshold does to these cases. None where there is no case of that class.

    A case on which the model abstains is neither flagged nor cleared: it counts against both.
    """

    name: str
    threshold: float
    sensitivity: Proportion | None
    specificity: Proportion | None
    flag_rate: float
    abstained: float = 0.0


class Seen(_Part):
    """One bin of the reliability diagram; ``low`` and ``high`` bound the observed share at 95 %."""

    mean_probability: float
    observed: float
    low: float
    high: float
    n: int


class CalibrationFigures(_Part):
    """How far probabilities mean what they say.

    ``expected_error_low`` and ``expected_error_high`` hold 95 % of the errors that perfectly
    calibrated probabilities of the same values would show by chance.
    """

    brier: Interval
    brier_reliability: float
    brier_resolution: float
    brier_uncertainty: float
    brier_within_bins: float
    slope: float | None
    intercept: float | None
    expected_error: float
    expected_error_mean: float
    expected_error_low: float
    expected_error_high: float
    mean_probability: float
    bins: tuple[Seen, ...]


class Curve(_Part):
    """A line to draw."""

    x: tuple[float, ...]
    y: tuple[float, ...]


class Figures(_Part):
    """All figures of one model on one set of cases; None where they cannot be had."""

    cases: int
    abnormal: int
    auc: Interval | None = None
    auc_bootstrap: Interval | None = None
    calibration: CalibrationFigures | None = None
    operating_points: tuple[AtThreshold, ...] = ()
    roc: Curve | None = None
    net_benefit: Curve | None = None


class Stratum(_Part):
    """The figures of one model on the cases with one value of one column."""

    column: str
    value: str
    figures: Figures


class ModelReport(_Part):
    """One model: on all cases, then by stratum."""

    name: str
    sha256: str
    overall: Figures
    strata: tuple[Stratum, ...] = ()


class Comparison(_Part):
    """AUC of ``first`` minus that of ``second`` on the same cases: DeLong, then the bootstrap.

    ``p_holm`` is the p value after Holm's correction over all comparisons of the report.
    """

    first: str
    second: str
    difference: Interval
    p_value: float
    p_holm: float
    bootstrap: Interval


class Report(_Part):
    """One report."""

    title: str
    made_at: str
    commit: str
    cases: CasesSeen
    flag_everyone: Curve | None
    models: tuple[ModelReport, ...]
    comparisons: tuple[Comparison, ...] = ()
