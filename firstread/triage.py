"""Triage files without any service: ``firstread triage PATH… [--json] [--heatmaps DIR]``.

Children decode, this process predicts: a file that hangs or crashes a decoder costs its own
line and nothing else. Whatever the number of files, only two batches are in memory at a time.
"""

import json as jsonlib
import re
import sys
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

from common.errors import ConfigurationError
from common.pixels.rendition import read_rendition
from common.settings import Settings, get_settings
from firstread.image_search import IMAGE_SUFFIXES, find_files
from firstread.offline_examining import DEFAULT_PIPELINE, Examiner, Seen
from firstread.offline_predicting import Pipeline, Predictor, load_on
from firstread.overlay import draw_overlay, write_overlay
from model.bundles import Bundle

if TYPE_CHECKING:
    from model.pipelines import Prediction


@dataclass(frozen=True, slots=True)
class TriageLine:
    """What is said of one image; its fields are the keys of ``--json``, in this order.

    ``reasons`` say why it is not eligible or failed, else which tags were missing; ``heatmap``
    is where the overlay was written.
    """

    path: str
    sop_instance_uid: str | None
    state: Literal["done", "not_eligible", "failed"]
    outcome: str | None = None
    probability: float | None = None
    score: float | None = None
    reasons: list[str] = field(default_factory=list)
    bundle: str | None = None
    heatmap: str | None = None


def triage(
    paths: Sequence[Path],
    *,
    bundles: Sequence[Bundle],
    json: bool = False,
    heatmaps: Path | None = None,
    settings: Settings | None = None,
    load: Callable[[Bundle], Pipeline] | None = None,
    out: TextIO | None = None,
) -> int:
    """Print one line per image and return the exit status: 1 if any file failed, else 0.

    Args:
        paths: Files and folders; a file that is named is always answered for.
        bundles: Which models there are; the last of each pipeline is used.
        json: One JSON object per line instead of a table.
        heatmaps: Folder for one overlay per scored image; made if it is not there.
        settings: What the site decided; default: from the environment.
        load: Makes a pipeline of a bundle; default: on the settings' device.
        out: Where the lines go; default: standard output.

    Raises:
        ConfigurationError: no bundle for radiographs.
    """
    stream: TextIO = out or sys.stdout
    failed = 0
    if not json:
        stream.write(_table_head())
    lines = triage_files(
        find_files(paths), bundles=bundles, heatmaps=heatmaps, settings=settings, load=load
    )
    for line in _with_progress(lines):
        failed += line.state == "failed"
        stream.write(f"{jsonlib.dumps(asdict(line))}\n" if json else _table_row(line))
        stream.flush()
    return 1 if failed else 0


def triage_files(
    paths: Iterable[Path],
    *,
    bundles: Sequence[Bundle],
    heatmaps: Path | None = None,
    settings: Settings | None = None,
    load: Callable[[Bundle], Pipeline] | None = None,
) -> Generator[TriageLine, None, None]:
    """Triage files one batch after the other and give their lines in input order.

    Args:
        paths: Files; read lazily.
        bundles: Which models there are; the last of each pipeline is used.
        heatmaps: Folder for the overlays; made if it is not there.
        settings: Device, batch size, decoding limits and the site's policy.
        load: Makes a pipeline of a bundle when its first image comes.

    Raises:
        ConfigurationError: no bundle for radiographs.
    """
    settings = settings or get_settings()
    chosen = {bundle.pipeline: bundle for bundle in bundles}
    if DEFAULT_PIPELINE not in chosen:
        raise ConfigurationError("no bundle for chest radiographs: see `firstread models`")
    predictor = Predictor(load or load_on(settings.device))
    if heatmaps is not None:
        heatmaps.mkdir(parents=True, exist_ok=True)
    number = 0
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="firstread-")))
        seen = stack.enter_context(
            Examiner(settings, chosen, scratch, with_renditions=heatmaps is not None)
        ).examine_all(paths)
        while batch := list(islice(seen, settings.max_batch)):
            predictions = predictor.predict(batch)
            for one, prediction in zip(batch, predictions, strict=True):
                number += 1
                drawn = None
                if heatmaps is not None:
                    drawn = heatmaps / f"{number:05d}_{_safe_stem(one.path)}.png"
                    drawn = _draw(one, prediction, drawn)
                one.rendition.unlink(missing_ok=True)
                yield _to_line(one, prediction, drawn)


def _draw(one: Seen, prediction: "Prediction | str | None", path: Path) -> Path | None:
    """Write the overlay of a scored image; None if there is none to write."""
    examined, bundle = one.examined, one.bundle
    if examined is None or bundle is None or prediction is None or isinstance(prediction, str):
        return None
    if examined.affine is None or examined.rows is None or examined.columns is None:
        return None
    overlay = draw_overlay(
        read_rendition(one.rendition),
        prediction.heatmap,
        examined.affine,
        size_px=(examined.rows, examined.columns),
        caption=caption_of(bundle, prediction.score),
    )
    write_overlay(overlay, path)
    return path


def caption_of(bundle: Bundle, score: float) -> str:
    """Say what an overlay's image scored, and at which prevalence that holds."""
    from dashboard.wording import number

    said = f"probability {number(bundle.interpret(score).probability)}"
    if bundle.site_prevalence is not None:
        return f"{said} corrected to prevalence {bundle.site_prevalence.prevalence:.1%}"
    if bundle.calibrator is None:
        return said
    return f"{said} calibrated at prevalence {bundle.calibrator.prevalence:.1%}"


def _to_line(one: Seen, prediction: "Prediction | str | None", drawn: Path | None) -> TriageLine:
    path, uid = str(one.path), one.sop_instance_uid
    bundle = f"{one.bundle.name} {one.bundle.version}" if one.bundle else None
    failure = one.failure or (prediction if isinstance(prediction, str) else None)
    if failure or one.bundle is None or one.examined is None:
        return TriageLine(path, uid, "failed", reasons=[failure or "not examined"], bundle=bundle)
    reasons = list(one.examined.reasons)
    if prediction is None or isinstance(prediction, str):
        return TriageLine(path, uid, "not_eligible", reasons=reasons, bundle=bundle)
    verdict = one.bundle.interpret(prediction.score)
    reasons += one.bundle.remarks
    return TriageLine(
        path,
        uid,
        "done",
        outcome=verdict.outcome,
        probability=verdict.probability,
        score=prediction.score,
        reasons=reasons,
        bundle=bundle,
        heatmap=str(drawn) if drawn else None,
    )


def _safe_stem(path: Path) -> str:
    stem = path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name
    return re.sub(r"[^\w.-]", "_", stem)[:80]


def _with_progress(lines: Iterator[TriageLine]) -> Iterator[TriageLine]:
    """Count on standard error while a person watches it and the lines go elsewhere."""
    if not sys.stderr.isatty() or sys.stdout.isatty():
        yield from lines
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.completed} images"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("triage", total=None)
        for line in lines:
            progress.advance(task)
            yield line


def _table_head() -> str:
    return f"{'STATE':<13}{'OUTCOME':<13}{'PROBABILITY':<13}IMAGE\n"


def _table_row(line: TriageLine) -> str:
    probability = "" if line.probability is None else f"{line.probability:.3f}"
    image = line.path + (f"  ({'; '.join(line.reasons)})" if line.reasons else "")
    row = f"{line.state:<13}{line.outcome or '-':<13}{probability or '-':<13}{image}"
    return "".join(c if c.isprintable() else "?" for c in row) + "\n"
