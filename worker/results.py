"""Turn what the model says of an image into the row's result."""

from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from common.lifecycle import Result
from common.states import Outcome
from worker.batching import Prediction

if TYPE_CHECKING:
    from model.bundles import Bundle
    from model.examination import Examined

# INSIGHT's own probability says whether any place in the image supports a finding. Where it
# contradicts a flag, the flag stands and the page says so; even odds if the bundle states no limit.
INSIGHT_SUPPORT = 0.5
UNSUPPORTED = "no localisation supports the flag"


def make_result(
    examined: "Examined",
    prediction: Prediction,
    bundle: "Bundle",
    *,
    rendition: str | None,
    decoded_at: datetime,
    predicted_at: datetime,
) -> Result:
    """Calibrate and judge a score; keep the heatmap as float16 with its way back to the image."""
    verdict = bundle.interpret(prediction.score)
    outcome = Outcome(verdict.outcome)
    reasons = [*examined.reasons, *bundle.remarks]
    support = INSIGHT_SUPPORT if bundle.insight_support is None else bundle.insight_support
    if outcome is Outcome.FLAGGED and prediction.insight_probability < support:
        reasons.append(UNSUPPORTED)
    heatmap = np.ascontiguousarray(prediction.heatmap, dtype=np.float16)
    if examined.affine is None or examined.rows is None or examined.columns is None:
        raise ValueError("an examined image has a size and a way back to it")
    return Result(
        score=float(prediction.score),
        probability=float(verdict.probability),
        outcome=outcome,
        reasons=reasons,
        insight_probability=float(prediction.insight_probability),
        heatmap=heatmap.tobytes(),
        heatmap_rows=heatmap.shape[0],
        heatmap_columns=heatmap.shape[1],
        heatmap_affine=[float(number) for number in examined.affine],
        rows=examined.rows,
        columns=examined.columns,
        rendition=rendition,
        decoded_at=decoded_at,
        predicted_at=predicted_at,
    )
