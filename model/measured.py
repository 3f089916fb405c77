"""What was measured of a model: figures with the cases that they come from; part of a bundle."""

from pydantic import BaseModel, ConfigDict, Field

_ALSO_CALIBRATED = "calibration and thresholds"


class Evaluation(BaseModel):
    """Figures on one set of cases. A figure that needs both classes is None without them.

    ``held_out`` says that no case was trained on, ``calibrated_on`` whether any of them set the
    calibrator, a threshold or a limit; None in descriptions from before that was recorded, whose
    ``note`` says it in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    abnormal: int = Field(ge=0)
    not_abnormal: int = Field(ge=0)
    held_out: bool
    calibrated_on: bool | None = None
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

    @property
    def was_calibrated_on(self) -> bool:
        """Whether calibration has seen a case of these."""
        if self.calibrated_on is None:
            return _ALSO_CALIBRATED in self.note
        return self.calibrated_on

    @property
    def untouched(self) -> bool:
        """Whether neither training nor calibration has seen a case of these."""
        return self.held_out and not self.was_calibrated_on


class Metrics(BaseModel):
    """All evaluations of a bundle, and figures of another kind under their names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    headline: str | None = None
    evaluations: tuple[Evaluation, ...] = ()
    further: dict[str, float] = {}
