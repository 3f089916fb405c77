"""The localisation table: every method with intervals, tests against one of them, and power.

Intervals resample patients. The tests count boxes as independent, of which a few share a patient.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from model.evaluation.bootstrap import rows_of_groups
from model.evaluation.lesion_boxes import BoxCase
from model.evaluation.localisation import OVERLAPS, Localised
from model.evaluation.paired_tests import (
    ALPHA,
    holm,
    mcnemar_exact,
    smallest_difference,
    smallest_shift,
    wilcoxon_pratt,
)

FIGURES = ("hit", "near_hit", "iou", "pixel_auc")
TESTED = ("hit", "iou", "pixel_auc")
DRAWS = 2000


class Interval(NamedTuple):
    """A mean over boxes with its 95 % interval over patients."""

    value: float
    low: float
    high: float


class MethodRow(BaseModel):
    """What one method reaches; ``iou_above`` and ``iobb_above`` are shares of boxes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    runs: int
    hit: Interval
    near_hit: Interval
    iou: Interval
    pixel_auc: Interval
    iou_above: dict[str, float]
    iobb_above: dict[str, float]


class Comparison(BaseModel):
    """The reference against another method in one figure; positive favours the reference."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    other: str
    figure: str
    difference: Interval
    p: float
    p_holm: float
    only_reference: int | None = None
    only_other: int | None = None


class SmallestShown(BaseModel):
    """The least differences that so many boxes show with a power of 80 %, two-sided at 5 %.

    ``hit_all_to_one`` is the most favourable case: every box on which two methods differ
    falls to the same one. ``hit`` takes the share of boxes on which methods did differ, and
    ``hit_holm`` the level of the first step of Holm's procedure. None: no difference at all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    discordant: float
    hit_all_to_one: float | None
    hit: float | None
    hit_holm: float | None
    iou: float
    pixel_auc: float


class LocalisationReport(BaseModel):
    """Everything that was measured on one set of boxes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    boxes: int
    patients: int
    reference: str
    methods: tuple[MethodRow, ...]
    comparisons: tuple[Comparison, ...]
    smallest: SmallestShown


def localisation_report(
    methods: dict[str, Sequence[Localised]], cases: Sequence[BoxCase], reference: str, seed: int = 0
) -> LocalisationReport:
    """Measure every method, one or more runs each, and compare the reference with the others."""
    patients = np.array([case.patient_id for case in cases])
    means = {name: mean_over_runs(runs) for name, runs in methods.items()}
    comparisons = [
        row
        for figure in TESTED
        for row in _compare(figure, methods, means, reference, patients, seed)
    ]
    return LocalisationReport(
        boxes=len(cases),
        patients=len(set(patients)),
        reference=reference,
        methods=tuple(
            _row(name, runs, means[name], patients, seed) for name, runs in methods.items()
        ),
        comparisons=tuple(comparisons),
        smallest=_smallest(methods, means, reference, seed),
    )


def mean_over_runs(runs: Sequence[Localised]) -> Localised:
    """Average the figures of each box over runs of the same method."""
    return Localised(*(np.mean(column, axis=0) for column in zip(*runs, strict=True)))


def typical_hits(runs: Sequence[Localised]) -> NDArray[np.bool_]:
    """Give the hits (N,) of the run whose number of hits is the median one.

    A majority over runs would not do: of a method that hits at random it would leave no hits.
    """
    in_order = sorted(runs, key=lambda run: float(run.hit.sum()))
    return in_order[len(in_order) // 2].hit >= 0.5


def _row(
    name: str,
    runs: Sequence[Localised],
    mean: Localised,
    patients: NDArray[np.str_],
    seed: int,
) -> MethodRow:
    intervals = {figure: _interval(getattr(mean, figure), patients, seed) for figure in FIGURES}
    return MethodRow(
        name=name,
        runs=len(runs),
        **intervals,
        iou_above={str(t): float(np.mean([run.iou > t for run in runs])) for t in OVERLAPS},
        iobb_above={str(t): float(np.mean([run.iobb > t for run in runs])) for t in OVERLAPS},
    )


def _compare(
    figure: str,
    methods: dict[str, Sequence[Localised]],
    means: dict[str, Localised],
    reference: str,
    patients: NDArray[np.str_],
    seed: int,
) -> list[Comparison]:
    """Compare in one figure; Holm over its comparisons."""
    ours: NDArray[np.float64] = getattr(means[reference], figure)
    rows: list[Comparison] = []
    for name in (name for name in methods if name != reference):
        theirs: NDArray[np.float64] = getattr(means[name], figure)
        difference = _interval(ours - theirs, patients, seed)
        if figure == "hit":
            hits = mcnemar_exact(typical_hits(methods[reference]), typical_hits(methods[name]))
            counts = {"only_reference": hits.only_first, "only_other": hits.only_second}
            p = hits.p
        else:
            counts, p = {}, wilcoxon_pratt(ours, theirs)
        rows.append(
            Comparison(other=name, figure=figure, difference=difference, p=p, p_holm=p, **counts)
        )
    adjusted = holm([row.p for row in rows])
    return [row.model_copy(update={"p_holm": p}) for row, p in zip(rows, adjusted, strict=True)]


def _interval(values: NDArray[np.float64], patients: NDArray[np.str_], seed: int) -> Interval:
    # What cluster_bootstrap gives for a mean, in one step for all draws.
    rows_of = rows_of_groups(patients)
    sums = np.array([values[rows].sum() for rows in rows_of])
    sizes = np.array([len(rows) for rows in rows_of])
    drawn = np.random.default_rng(seed).integers(len(rows_of), size=(DRAWS, len(rows_of)))
    low, high = np.quantile(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high))


def _smallest(
    methods: dict[str, Sequence[Localised]],
    means: dict[str, Localised],
    reference: str,
    seed: int,
) -> SmallestShown:
    names = [name for name in methods if name != reference]
    others = [means[name] for name in names]
    boxes, ours = len(means[reference].hit), typical_hits(methods[reference])
    discordant = float(np.median([(typical_hits(methods[name]) != ours).mean() for name in names]))
    shifts = {
        figure: smallest_shift(_typical_differences(figure, means[reference], others), seed)
        for figure in ("iou", "pixel_auc")
    }
    return SmallestShown(
        discordant=discordant,
        hit_all_to_one=_least(boxes, 0.0),
        hit=_least(boxes, discordant),
        hit_holm=_least(boxes, discordant, alpha=ALPHA / max(1, len(others))),
        **shifts,
    )


def _least(boxes: int, discordant: float, alpha: float = ALPHA) -> float | None:
    try:
        return smallest_difference(boxes, discordant, alpha=alpha)
    except ValueError:  # so few boxes that nothing could ever be shown
        return None


def _typical_differences(
    figure: str, reference: Localised, others: list[Localised]
) -> NDArray[np.float64]:
    """Give the paired differences (N,) of the comparison whose spread is the median one."""
    ours: NDArray[np.float64] = getattr(reference, figure)
    differences = sorted((ours - getattr(other, figure) for other in others), key=np.std)
    return differences[len(differences) // 2]
