"""What the gate is trained and tested on: glances (64 x 64) at radiographs, scans and nonsense.

Patients and volumes never cross splits: radiographs keep theirs, volume P001 is in test alone (its
slices are also the series under ``dicom/``), and ``gate_nonsense.UNSEEN_KINDS`` are in test alone.
"""

import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.pixels.image_files import read_image_file
from model import gate_features
from model.gate import Kind
from model.gate_features import glance
from model.training import gate_nonsense, gate_variants
from model.training.cases import Case, read_case, read_cases

TRAIN_VOLUMES = ("cap002", "normal001")
TEST_VOLUMES = ("P001",)
VARIANTS = 1

Image = NDArray[np.float32]


# What a glance at a part depends on, beside the data and the seed.
_CODE = (gate_nonsense, gate_variants, gate_features, sys.modules[__name__])


def parts_key(data: Path, seed: int) -> str:
    """Fingerprint what the parts are made of: seed, files by name, size and change, and code."""
    digest = hashlib.sha256(f"{seed}\n".encode())
    for module in _CODE:
        digest.update(Path(str(module.__file__)).read_bytes())
    for path in sorted(path for of in ("cxr", "ct", "wsi") for path in (data / of).rglob("*")):
        if path.is_file():
            state = path.stat()
            line = f"{path.relative_to(data)} {state.st_size} {state.st_mtime_ns}\n"
            digest.update(line.encode())
    return digest.hexdigest()


class Part(NamedTuple):
    """Glances of one origin: uint8 (N, 64, 64)."""

    split: str
    name: str
    kind: Kind
    images: NDArray[np.uint8]


def gate_parts(data: Path, seed: int) -> Iterator[Part]:
    """Make all parts from a folder that holds ``cxr``, ``ct`` and ``wsi``; the same for a seed."""
    cases = read_cases(data / "cxr")
    for number, split in enumerate(("train", "val", "test")):
        rng = np.random.default_rng((seed, number))
        mine = [case for case in cases if case.split == split]
        images = [read_case(case) for case in mine]
        yield from radiographs(split, mine, images, rng)
        yield from spoilt(split, images, rng, 1500 if split == "train" else 200)
        yield from nonsense(split, rng, 200 if split == "train" else 50)
    yield from scans(data, "train", TRAIN_VOLUMES, 700, seed)
    yield from scans(data, "test", TEST_VOLUMES, 100, seed + 1)
    tiles = [read_image_file(path) for path in sorted((data / "wsi").rglob("*.png"))]
    yield Part("train", "slide tile", Kind.PHOTOGRAPH, glances(tiles))


def radiographs(
    split: str, cases: list[Case], images: list[Image], rng: np.random.Generator
) -> Iterator[Part]:
    for adult, kind in ((True, Kind.ADULT), (False, Kind.CHILD)):
        for dataset in sorted({case.dataset for case in cases if case.adult == adult}):
            chosen = [
                image
                for case, image in zip(cases, images, strict=True)
                if case.adult == adult and case.dataset == dataset
            ]
            yield Part(split, dataset, kind, glances(chosen))
            if split == "train":
                for _ in range(VARIANTS):
                    varied = [gate_variants.vary(image, rng) for image in chosen]
                    yield Part(split, f"{dataset}, varied", kind, glances(varied))


def spoilt(split: str, images: list[Image], rng: np.random.Generator, count: int) -> Iterator[Part]:
    ways: tuple[tuple[str, Kind, Callable[[Image], Image]], ...] = (
        ("turned", Kind.TURNED, lambda image: gate_variants.turn(image, rng)),
        ("inverted", Kind.INVERTED, gate_variants.invert),
        ("cut out", Kind.OTHER_PART, lambda image: gate_variants.cut(image, rng)),
        ("damaged", Kind.DAMAGED, lambda image: gate_variants.spoil(image, rng)),
    )
    for name, kind, change in ways:
        picked = [images[k] for k in rng.integers(len(images), size=count)]
        changed = [change(gate_variants.vary(image, rng)) for image in picked]
        yield Part(split, name, kind, glances(changed))


def nonsense(split: str, rng: np.random.Generator, count: int) -> Iterator[Part]:
    kinds = [
        *((make, Kind.PATTERN) for make in gate_nonsense.NOISE_KINDS),
        *((make, Kind.PATTERN) for make in gate_nonsense.PATTERN_KINDS),
        (gate_nonsense.bones, Kind.OTHER_PART),
        (gate_nonsense.scene, Kind.PHOTOGRAPH),
    ]
    if split == "test":
        kinds += [(make, Kind.PATTERN) for make in gate_nonsense.UNSEEN_KINDS]
        kinds += [(gate_nonsense.constant, Kind.BLANK)]
    for make, kind in kinds:
        # Rare kinds of real images stand for many: bones and scenes count four times.
        repeat = 4 if split == "train" and kind is not Kind.PATTERN else 1
        made = [make(rng) for _ in range(count * repeat)]
        unseen = " (new kind)" if make in gate_nonsense.UNSEEN_KINDS else ""
        yield Part(split, make.__name__.replace("_", " ") + unseen, kind, glances(made))


def scans(data: Path, split: str, names: Sequence[str], count: int, seed: int) -> Iterator[Part]:
    """Slice volumes, and simulate lateral radiographs of them."""
    rng = np.random.default_rng(seed)
    volumes = [
        gate_variants.read_nifti(data / "ct" / "covid_ct_md" / f"{name}.nii.gz") for name in names
    ]
    turns = [volumes[k % len(volumes)] for k in range(count)]
    slices = [gate_variants.slice_of(volume, rng) for volume in turns]
    yield Part(split, "CT slice", Kind.SCAN_SLICE, glances(slices))
    laterals = [gate_variants.lateral_of(volume, rng) for volume in turns]
    yield Part(split, "simulated lateral", Kind.LATERAL, glances(laterals))


def glances(images: Sequence[Image]) -> NDArray[np.uint8]:
    """Glance at images of any sizes: uint8 (N, 64, 64)."""
    return np.rint(np.stack([glance(image) for image in images]) * 255).astype(np.uint8)
