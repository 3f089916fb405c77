"""Triage series and slides for research: ``firstread triage PATH --pipeline slide --bundle DIR``.

One line for each slide or series: a raw score, and heatmaps where a folder for them is named.
"""

import json as jsonlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, TextIO

from common.errors import ConfigurationError, FirstreadError, NotEligibleError, OperatorError
from common.settings import Settings
from firstread.research_pipelines import (
    ResearchPipeline,
    ResearchPipelineName,
    Unit,
    load_research_pipeline,
)
from model.bundles import read_bundle


@dataclass(frozen=True, slots=True)
class ResearchLine:
    """What is said of one slide or series; its fields are the keys of ``--json``."""

    path: str
    series_instance_uid: str | None
    state: Literal["done", "not_eligible", "failed"]
    score: float | None = None
    insight_probability: float | None = None
    reasons: list[str] = field(default_factory=list)
    measured: dict[str, float | int | str] = field(default_factory=dict)
    bundle: str | None = None
    heatmaps: list[str] = field(default_factory=list)
    use: str = "research only: no probability, no outcome"


def research_triage(
    name: ResearchPipelineName,
    paths: Sequence[Path],
    *,
    bundle: Path | None,
    json: bool = False,
    heatmaps: Path | None = None,
    settings: Settings,
    out: TextIO | None = None,
) -> int:
    """Print one line per slide or series; the exit status is 1 if any of them failed, else 0.

    Raises:
        ConfigurationError: no bundle, or one of another pipeline.
        BundleError: the bundle is damaged.
    """
    if bundle is None:
        raise ConfigurationError(f"--pipeline {name} needs --bundle: the folder of its model")
    described = read_bundle(bundle)
    if described.pipeline != name:
        raise ConfigurationError(
            f"{bundle} is a bundle of the pipeline {described.pipeline}, not of {name}"
        )
    stream: TextIO = out or sys.stdout
    pipeline = load_research_pipeline(name, described, settings)
    if heatmaps is not None:
        heatmaps.mkdir(parents=True, exist_ok=True)
    if not json:
        stream.write("Research only: the score is a raw logit, not a probability.\n")
        stream.write(f"{'STATE':<13}{'SCORE':<10}PATH\n")
    failed = 0
    for line in _lines(pipeline, paths, f"{described.name} {described.version}", heatmaps):
        failed += line.state == "failed"
        stream.write(f"{jsonlib.dumps(asdict(line))}\n" if json else _table_row(line))
        stream.flush()
    return 1 if failed else 0


def _lines(
    pipeline: ResearchPipeline, paths: Sequence[Path], bundle: str, heatmaps: Path | None
) -> Iterator[ResearchLine]:
    for unit in pipeline.find_units(paths):
        yield _line(pipeline, unit, bundle, heatmaps)


def _line(
    pipeline: ResearchPipeline, unit: Unit, bundle: str, heatmaps: Path | None
) -> ResearchLine:
    path = str(unit.path)
    if unit.failure is not None:
        return ResearchLine(path, None, "failed", reasons=[unit.failure], bundle=bundle)
    try:
        result = pipeline.analyse(unit, heatmaps)
    except NotEligibleError as error:
        return ResearchLine(path, None, "not_eligible", reasons=[str(error)], bundle=bundle)
    except OperatorError:
        raise
    except FirstreadError as error:
        return ResearchLine(path, None, "failed", reasons=[str(error)], bundle=bundle)
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
        return ResearchLine(path, None, "failed", reasons=[reason], bundle=bundle)
    return ResearchLine(
        path,
        result.series_instance_uid,
        "done",
        score=result.score,
        insight_probability=result.insight_probability,
        reasons=list(result.notes),
        measured=result.measured,
        bundle=bundle,
        heatmaps=[str(written) for written in result.heatmaps],
    )


def _table_row(line: ResearchLine) -> str:
    score = "-" if line.score is None else f"{line.score:.3f}"
    path = line.path + (f"  ({'; '.join(line.reasons)})" if line.reasons else "")
    row = f"{line.state:<13}{score:<10}{path}"
    return "".join(c if c.isprintable() else "?" for c in row) + "\n"
