"""Maps that know nothing of the image: what a method must beat before it locates anything."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.evaluation.lesion_boxes import BoxCase
from model.evaluation.localisation import RASTER, box_mask


def random_maps(
    cases: Sequence[BoxCase], grid: tuple[int, int], seed: int
) -> list[NDArray[np.float32]]:
    """Draw one map of uniform cells (h, w) for each image; its boxes share it."""
    generator = np.random.default_rng(seed)
    count = max(case.image for case in cases) + 1
    drawn = generator.random((count, *grid), dtype=np.float32)
    return [drawn[case.image] for case in cases]


def mean_box_maps(cases: Sequence[BoxCase], *, per_finding: bool) -> list[NDArray[np.float32]]:
    """Average the boxes of all other patients: the share of them that cover each place.

    Args:
        cases: N boxes.
        per_finding: average the boxes of the same finding alone, where other patients have any.
            Such a map is told the finding, which no network here is.
    """
    masks = np.stack([box_mask(case.box) for case in cases]).astype(np.float32)
    patients = np.array([case.patient_id for case in cases])
    findings = np.array([case.box.finding for case in cases])
    maps = np.empty((len(cases), RASTER, RASTER), dtype=np.float32)
    for number, case in enumerate(cases):
        others = patients != case.patient_id
        alike = others & (findings == case.box.finding)
        chosen = alike if per_finding and alike.any() else others
        maps[number] = masks[chosen].mean(axis=0) if chosen.any() else 0.0
    return list(maps)
