"""The pipelines for research: which there are, and what each of them must offer.

A research pipeline gives a raw score and heatmaps, never a probability or an outcome, and stands
on no worklist.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from common.settings import Settings
    from model.bundles import Bundle


class ResearchPipelineName(StrEnum):
    """What ``--pipeline`` takes; the value is the ``pipeline`` of its bundles."""

    CHEST_CT = "chest_ct"
    SLIDE = "slide"


# Each module has one function ``load(bundle, settings) -> ResearchPipeline``.
_MODULES = {
    ResearchPipelineName.CHEST_CT: "firstread.ct_triage",
    ResearchPipelineName.SLIDE: "firstread.slide_triage",
}


@dataclass(frozen=True, slots=True)
class Unit:
    """What one line answers for: a slide or a series, named by the path that a person knows.

    ``failure`` says why a file could not even be opened; there is nothing to analyse then.
    """

    path: Path
    files: tuple[Path, ...]
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class ResearchResult:
    """What a research pipeline says of one unit.

    Attributes:
        score: raw logit, not calibrated.
        insight_probability: INSIGHT's own, in [0, 1], not calibrated.
        series_instance_uid: of what was analysed.
        measured: counts that tell what was looked at, such as tiles or slices.
        heatmaps: the files that were written.
        notes: what the reader should know of this unit.
    """

    score: float
    insight_probability: float
    series_instance_uid: str | None = None
    measured: dict[str, float | int | str] = field(default_factory=dict)
    heatmaps: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


class ResearchPipeline(Protocol):
    """A loaded bundle of a research pipeline."""

    def find_units(self, paths: Sequence[Path]) -> Iterator[Unit]:
        """Group the files that a person named; a path that is named is always answered for."""
        ...

    def analyse(self, unit: Unit, heatmaps: Path | None) -> ResearchResult:
        """Analyse one unit and write its heatmaps into the folder, if there is one.

        Raises:
            NotEligibleError: the pipeline was not made for it; the message is the reason.
            FirstreadError: it cannot be analysed; the message is the reason.
        """
        ...


def load_research_pipeline(
    name: ResearchPipelineName, bundle: "Bundle", settings: "Settings"
) -> ResearchPipeline:
    """Load a bundle of this pipeline.

    Raises:
        BundleError: the weights do not fit.
    """
    return import_module(_MODULES[name]).load(bundle, settings)
