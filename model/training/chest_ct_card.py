"""The card of a ``chest_ct`` bundle trained on a few patients, written from its own figures."""

from collections.abc import Sequence
from typing import Any

from model.ct.hounsfield_window import HounsfieldWindow
from model.training.ct_insight import CtTrainingConfig
from model.training.ct_left_out import LeftOut
from model.training.packing import DISCLAIMER

INTENDED_USE = (
    "Research into heatmaps on chest CT, and proof that the pipeline runs from DICOM to heatmap."
    " Not for deciding anything about anyone."
)

TEXT = """{disclaimer}

# Chest CT, trained on {count} patients

{intended_use}

## What it is

INSIGHT over the slices of one series as one bag, on the feature map of the encoder of
{encoder}, frozen as it is. That encoder was trained on chest radiographs: it stands in for DINOv2,
whose weights are not part of this project. HU from {low:.0f} to {high:.0f} become 0 to 1. The raw
score is the log odds of INSIGHT's probability over all cells of all slices. The bundle has no
calibrator and no operating point, so it gives no probability and no outcome, and stands on no
worklist.

## What {count} patients show

That the code runs, and nothing about accuracy: {count} series are {count} cases. Each row is a
patient whom {seeds} heads (as many seeds) never saw. The recipe's settings were chosen on
generated features and for time, not on these patients. "Position alone" knows how high in the
chest a slice lies and not one of its pixels: what does not beat it has learnt where pneumonia
lies, not what it looks like.

| patient | diagnosis | slices, infected | series: INSIGHT's probability | infected slices, AUC | \
position alone, AUC |
|---|---|---|---|---|---|
{rows}

The slices of one patient are not independent, so no interval is given. The weights in this bundle
were fitted to all {count} patients: whatever they say of these is in-sample.

## Training

{steps} steps of one bag of {bag} slices each, {clean:.0%} of the bags without infected slices;
slices and their mirror images, so left and right mean nothing to it; slice labels and bag labels
with equal weight. Seed, commit and versions: `training` in `bundle.json`. Data fingerprint:
`{fingerprint}`.

## Not measured

Accuracy; other patients, hospitals, makers, reconstruction kernels, doses and slice thicknesses;
any disease but pneumonia; whether a heatmap lies on a lesion (there are no masks).
"""


def chest_ct_card(
    results: Sequence[LeftOut],
    config: CtTrainingConfig,
    record: dict[str, Any],
    window: HounsfieldWindow,
) -> str:
    """Write the card from what the heads made of the patients that were left out."""
    return TEXT.format(
        disclaimer=DISCLAIMER,
        intended_use=INTENDED_USE,
        encoder=record["data"]["encoder"],
        low=window.low_hu,
        high=window.high_hu,
        count=len(results),
        seeds=config.seeds,
        rows="\n".join(_row(one) for one in results),
        steps=config.steps,
        bag=config.bag_slices,
        clean=config.clean_bags,
        fingerprint=record["data"]["fingerprint"],
    )


def _row(one: LeftOut) -> str:
    areas, prior = one.slice_auc, one.slice_auc_by_position_alone
    cells = [
        one.patient,
        one.diagnosis,
        f"{one.slices}, {one.infected}",
        _several(one.probability),
        "-" if areas is None else _several(areas),
        "-" if prior is None else f"{prior:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def _several(values: Sequence[float]) -> str:
    """List the value of each seed."""
    return ", ".join(f"{value:.2f}" for value in values)
