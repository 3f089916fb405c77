"""The maps that every localisation table shows: a bundle's own two, and the controls.

Letters of shapes: N boxed images, h and w rows and columns of a map.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from model.evaluation.lesion_boxes import BoxCase, BoxedImage
from model.evaluation.localisation import Localised, measure
from model.evaluation.localisation_controls import mean_box_maps, random_maps
from model.insight import InsightHead
from model.training.ablation_features import StageFeatures
from model.training.ablation_fit import FitConfig, ScaledMaps, predict_head
from model.training.ablation_segmenter import cross_validated_maps

Say = Callable[[str], None]
ImageMaps = NDArray[np.float32]

NOTES = {
    "bundle_insight": "the bundle's own INSIGHT, trained together with its encoder",
    "additive_map": "exact map of the bundle's triage head; its mean and bias are the score",
    "segmenter": "supervised: same features, shown the boxes of other patients (grouped"
    " cross-validation, since there are only these boxes)",
    "mean_box_of_finding": "control: mean box of other patients' same finding; is told the finding",
    "mean_box": "control: mean box of all other patients",
    "untrained": "control: INSIGHT with random weights on the same features",
    "random": "control: random cells",
}
PER_BOX = ("mean_box_of_finding", "mean_box")


def of_cases(maps: NDArray[np.float32], cases: Sequence[BoxCase]) -> Localised:
    """Measure one map for each image, (N, h, w), on all boxes."""
    return measure([maps[case.image] for case in cases], cases)


def own_maps(features: StageFeatures) -> dict[str, ImageMaps]:
    """Give the two maps (N, h, w) that the bundle's own heads make."""
    return {"bundle_insight": features.insight, "additive_map": features.additive}


def shown_additive(features: StageFeatures) -> ImageMaps:
    """Give the additive map in [0, 1]: the score if every place were like this one."""
    cells = features.additive.astype(np.float64)
    bias = features.triage_score - cells.mean(axis=(1, 2))
    return (1 / (1 + np.exp(-(cells + bias[:, None, None])))).astype(np.float32)


def control_runs(
    scaled: ScaledMaps,
    features: StageFeatures,
    images: list[BoxedImage],
    cases: Sequence[BoxCase],
    fit: FitConfig,
    seeds: int,
    say: Say = lambda _: None,
) -> tuple[dict[str, list[Localised]], dict[str, list[ImageMaps]]]:
    """Run every control: what each reaches on each seed, and its maps where they are per image."""
    spatial = scaled.scale(features.spatial)
    grid = (spatial.shape[2], spatial.shape[3])
    maps: dict[str, list[ImageMaps]] = {"segmenter": [], "untrained": []}
    random: list[Localised] = []
    for seed in range(seeds):
        say(f"controls, seed {seed}: the segmenter is fitted anew for each fold of patients")
        maps["segmenter"].append(cross_validated_maps(spatial, images, fit, seed))
        torch.manual_seed(seed)
        head = InsightHead(spatial.shape[1])
        maps["untrained"].append(predict_head(head, [spatial]).heatmap[:, 0].numpy())
        random.append(measure(random_maps(cases, grid, seed), cases))
    runs = {name: [of_cases(one, cases) for one in kept] for name, kept in maps.items()}
    runs["random"] = random
    for name, per_finding in (("mean_box_of_finding", True), ("mean_box", False)):
        runs[name] = [measure(mean_box_maps(cases, per_finding=per_finding), cases)]
    order = [name for name in NOTES if name in runs]
    return {name: runs[name] for name in order}, maps
