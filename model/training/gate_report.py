"""Look through a bundle's gate at real files and at nonsense, and count what it refuses and why."""

import csv
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from common.errors import BundleError, ImageError, SenderError, TrainingDataError
from common.pixels.reading import read_pixels
from model.bundles import Bundle
from model.eligibility import Policy
from model.examination import examine
from model.gate import CHEST_REFUSAL, Gate, Kind, RefusalRate
from model.gate_features import glance
from model.training import gate_set
from model.training.cases import read_case, read_cases
from model.training.gate_rates import measure_parts, refusal_rate, weigh_all

SITE = Policy(unknown_age="by_pixels", accept_secondary_capture=True)
TILE_PX = 128
TILES_PER_ROW = 10


class Mistake(NamedTuple):
    """A picture that the gate took or refused wrongly: uint8 (64, 64)."""

    said: str
    image: NDArray[np.uint8]


class GateReport(BaseModel):
    """What was counted. ``wrong`` names files and parts; ``look_ms`` is per image, one thread."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: str
    sha256: str
    rates: tuple[RefusalRate, ...]
    wrong: tuple[str, ...]
    look_ms_median: float | None = None
    look_ms_95: float | None = None


def report_gate(
    bundle: Bundle,
    out: Path,
    *,
    dicom: Path | None = None,
    data: Path | None = None,
    split: str = "val",
) -> GateReport:
    """Count, and write ``gate_report.json`` and ``wrong.png`` into ``out``.

    Args:
        bundle: A bundle with a gate.
        out: Folder of the report.
        dicom: Folder with manifest.csv (columns file, category) and the files that it names.
        data: Folder that holds ``cxr`` and, for scans and laterals, ``ct`` and ``wsi``.
        split: Which radiographs, and which nonsense: val or test.

    Raises:
        BundleError: the bundle has no gate.
        TrainingDataError: there is no manifest.
    """
    gate = bundle.load_gate()
    if gate is None:
        raise BundleError(f"{bundle.folder}: no gate; model.training.gate_packing adds one")
    cv2.setNumThreads(1)
    rates: list[RefusalRate] = []
    mistakes: list[Mistake] = []
    times: list[float] = []
    if dicom is not None:
        rates += _count_files(bundle, gate, dicom, mistakes, times)
    if data is not None:
        parts = list(_parts(data, split))
        rates += measure_parts(gate, parts)
        mistakes += chain.from_iterable(_mistakes_of(gate, part) for part in parts)
    report = GateReport(
        bundle=f"{bundle.name} {bundle.version}",
        sha256=bundle.sha256,
        rates=tuple(rates),
        wrong=tuple(mistake.said for mistake in mistakes),
        look_ms_median=float(np.median(times)) if times else None,
        look_ms_95=float(np.percentile(times, 95)) if times else None,
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "gate_report.json").write_text(json.dumps(report.model_dump(), indent=2) + "\n")
    if mistakes:
        cv2.imwrite(str(out / "wrong.png"), contact_sheet(mistakes))
    return report


def contact_sheet(mistakes: list[Mistake]) -> NDArray[np.uint8]:
    """Lay pictures out in rows, each over its words."""
    tiles = []
    for mistake in mistakes:
        tile = cv2.resize(mistake.image, (TILE_PX, TILE_PX), interpolation=cv2.INTER_NEAREST)
        tile = cv2.copyMakeBorder(tile, 0, 28, 1, 1, cv2.BORDER_CONSTANT)
        for line, start in enumerate((0, 24)):
            words = mistake.said[start : start + 24]
            cv2.putText(tile, words, (1, TILE_PX + 11 + 13 * line), 0, 0.3, 255, 1)
        tiles.append(tile)
    blank = np.zeros_like(tiles[0])
    tiles += [blank] * (-len(tiles) % TILES_PER_ROW)
    rows = [np.hstack(tiles[k : k + TILES_PER_ROW]) for k in range(0, len(tiles), TILES_PER_ROW)]
    return np.vstack(rows).astype(np.uint8)


def _count_files(
    bundle: Bundle, gate: Gate, folder: Path, mistakes: list[Mistake], times: list[float]
) -> Iterator[RefusalRate]:
    """Count by category: by pixels alone over different pictures, then with tags over all files."""
    manifest = folder / "manifest.csv"
    if not manifest.is_file():
        raise TrainingDataError(f"{manifest} is missing; --dicom takes a folder with a manifest")
    by_pixels: dict[str, list[str | None]] = defaultdict(list)
    by_both: dict[str, list[str | None]] = defaultdict(list)
    seen_before: set[str] = set()
    with manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        path, category = folder / row["file"], row["category"]
        by_both[category].append(_refusal_of_file(path, bundle))
        try:
            image = read_pixels(path)
        except (ImageError, SenderError):
            continue
        # Many files are one picture in other encodings: it counts once.
        picture = np.rint(glance(image) * 255).astype(np.uint8)
        fingerprint = hashlib.sha256((picture // 16).tobytes()).hexdigest()
        if fingerprint in seen_before:
            continue
        seen_before.add(fingerprint)
        start = perf_counter()
        sight = gate.look(image)
        times.append(1000 * (perf_counter() - start))
        reason = gate.judge(sight, stated=False, age_unknown=True)
        by_pixels[category].append(_short(reason))
        if (reason is None) != (category == "cxr"):
            mistakes.append(Mistake(f"{category} {_short(reason) or 'taken'}", picture))
    for category, found in sorted(by_pixels.items()):
        name = f"dicom: {category}, different pictures, by pixels alone"
        yield _rate(name, found)
    others = chain.from_iterable(v for k, v in by_pixels.items() if k != "cxr")
    yield _rate("dicom: all but cxr, different pictures, by pixels alone", list(others))
    for category, found in sorted(by_both.items()):
        yield _rate(f"dicom: {category}, files, by tags and pixels", found)


def _refusal_of_file(path: Path, bundle: Bundle) -> str | None:
    """Give the first reason for which a site's worker would refuse or fail a file."""
    try:
        examined = examine(path, bundle, SITE)
    except (ImageError, SenderError):
        return "cannot be read"
    return None if examined.eligible else _short(examined.reasons[0])


def _rate(name: str, found: list[str | None]) -> RefusalRate:
    return refusal_rate(name, len(found), Counter(reason for reason in found if reason))


def _short(reason: str | None) -> str | None:
    return reason and reason.removeprefix(f"{CHEST_REFUSAL}: ")


def _parts(data: Path, split: str) -> Iterator[gate_set.Part]:
    """Make the parts of one split, with nonsense that no training run has seen."""
    if split not in ("val", "test"):
        raise TrainingDataError(f"--split {split}: there are val and test")
    cases = [case for case in read_cases(data / "cxr") if case.split == split]
    images = [read_case(case) for case in cases]
    rng = np.random.default_rng((1_000_000, split == "test"))
    yield from gate_set.radiographs(split, cases, images, rng)
    yield from gate_set.spoilt(split, images, rng, 200)
    yield from gate_set.nonsense(split, rng, 50)
    if split == "test" and (data / "ct").is_dir():
        yield from gate_set.scans(data, "test", gate_set.TEST_VOLUMES, 100, 1_000_000)


def _mistakes_of(gate: Gate, part: gate_set.Part) -> Iterator[Mistake]:
    """Name adults that are refused, and anything else that is taken."""
    for image, sight in zip(part.images, weigh_all(gate, part.images), strict=True):
        reason = gate.judge(sight, stated=False, age_unknown=True)
        if (reason is None) != (part.kind is Kind.ADULT):
            child = " child" if part.kind is Kind.CHILD else ""
            yield Mistake(f"{part.name}{child} {_short(reason) or 'taken'}", image)
