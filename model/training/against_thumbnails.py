"""Compare the compact network with logistic regressions on thumbnails, over all and within views.

In NIH's held-out cases a PA view says "abnormal" more often than an AP view: how the cases were
gathered, no disease. What is compared within views cannot gain from that.
"""

from pathlib import Path
from typing import Any

import numpy as np

from model.evaluation.discrimination import auc, paired_auc_difference
from model.evaluation.within_strata import auc_within, paired_difference_within
from model.training.cases import Case
from model.training.compact import select_training_cases
from model.training.compact_measures import Scored
from model.training.compact_recipe import second_phase
from model.training.thumbnail_baseline import ThumbnailBaseline, fit_thumbnail_baseline

LAST_PHASE = "_drawn_as_in_the_last_phase"


def against_both_baselines(
    scored: Scored, cases: list[Case], boxes: Path, data: dict[str, Any]
) -> dict[str, float]:
    """Compare with thumbnails of all training images, and of those that the last phase drew.

    The first is the one that every version has been compared with; the second has what the
    network has, should it be the stronger. ``data`` is the run's record of its data.
    """
    without = frozenset(data["without"])
    of_all = fit_thumbnail_baseline(select_training_cases(cases, boxes, without).train)
    figures = against_thumbnails(scored, of_all)
    if data.get("start") is None:
        return figures
    phase = second_phase(0)
    selection = select_training_cases(cases, boxes, without, disputed=phase.disputed)
    of_last = fit_thumbnail_baseline(selection.train, phase.shares)
    return {**figures, **against_thumbnails(scored, of_last, LAST_PHASE)}


def against_thumbnails(
    scored: Scored, baseline: ThumbnailBaseline, suffix: str = ""
) -> dict[str, float]:
    """Compare on the headline's cases, paired (DeLong).

    With val's cases added, which chose between arms, the names end in ``_val_and_test``.
    """
    figures: dict[str, float] = {}
    for splits, where in (({"test"}, "_nih_test_adults"), ({"val", "test"}, "_val_and_test")):
        rows = scored.rows({"nih_cxr14"}, splits, adult=True)
        labels, score = scored.labels(rows), scored.predicted.score[rows]
        views = np.array([scored.cases[row].view for row in rows])
        of_thumbnails = baseline.score([scored.cases[row] for row in rows])
        end = f"{where.removeprefix('_nih_test_adults')}{suffix}"
        for name, found in (
            ("", paired_auc_difference(labels, score, of_thumbnails)),
            ("_within_views", paired_difference_within(labels, score, of_thumbnails, views)),
        ):
            figures |= {
                f"better_than_thumbnails{name}{end}": found.difference,
                f"better_than_thumbnails{name}_low{end}": found.low,
                f"better_than_thumbnails{name}_high{end}": found.high,
                f"better_than_thumbnails{name}_p{end}": found.p_value,
            }
        figures |= {
            f"thumbnail_auc{where}{suffix}": auc(labels, of_thumbnails),
            f"thumbnail_auc_within_views{where}{suffix}": auc_within(labels, of_thumbnails, views),
            f"auc_within_views{where}": auc_within(labels, score, views),
        }
    return figures
