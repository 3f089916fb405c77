"""The part of the Hounsfield scale that an encoder sees; part of a bundle for CT."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class HounsfieldWindow(BaseModel):
    """What becomes 0 and what becomes 1, in HU; beyond is cut off.

    Source: -1000 to 400 HU is the lung window of the published INSIGHT for CT.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    low_hu: float = Field(default=-1000.0, ge=-2000, le=4000)
    high_hu: float = Field(default=400.0, ge=-2000, le=4000)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low_hu >= self.high_hu:
            raise ValueError("low_hu must be below high_hu")
        return self
