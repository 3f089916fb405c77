"""What was measured of a model: figures with the cases that they come from; part of a bundle."""

from pydantic import BaseModel, ConfigDict, Field


class Evaluation(BaseModel):
    """Figures on one set of cases. A figure that needs both classes is None without them.

    ``held_out`` says that no case was trained on; ``note`` says what else they were used for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    abnormal: int = Field(ge=0)
    not_abnormal: int = Field(ge=0)
    held_out: bool
    note: str = ""
    auc: float | None = None
    auc_low: float | None = None
    auc_high: float | None = None
    sensitivity: float | None = None
    sensitivity_lower_bound: float | None = None
    specificity: float | None = None
    specificity_lower_bound: float | None = None
    brier: float | None = None
    calibration_slope: float | None = None
    calibration_intercept: float | None = None
    expected_calibration_error: float | None = None


class Metrics(BaseModel):
    """All evaluations of a bundle, and figures of another kind under their names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    headline: str | None = None
    evaluations: tuple[Evaluation, ...] = ()
    further: dict[str, float] = {}
