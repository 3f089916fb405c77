"""Poisoned files through the worker's decoding children: what each came to."""

import random
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import psutil

from common.errors import FirstreadError
from common.settings import Settings
from model.bundles import Bundle
from model.eligibility import Policy
from tests.faults.objects import fixed_uids
from tests.radiographs import LOSSLESS, make_exposure, make_radiograph, write_radiograph
from tests.waiting import stretch
from worker.decoding import Decoder

NOW = datetime(2026, 11, 23, tzinfo=UTC)
DEADLINE_S, MEMORY_BYTES = 10.0, 1 << 30


def decode_all(paths: Iterable[Path], bundle: Bundle, folder: Path) -> Counter[str]:
    """Examine files one after the other, as a worker does; a valid one must be read at the end.

    Nothing but our own errors may come out of it, and the children must stay small.
    """
    came_to = Counter[str]()
    valid = write_radiograph(make_radiograph(make_exposure(12), 12), folder / "valid.dcm")
    settings = Settings(
        decode_processes=1,
        decode_deadline_s=DEADLINE_S * stretch(),
        decode_memory_bytes=MEMORY_BYTES,
        max_pixels=4_000_000,
    )
    decoder = Decoder(settings)
    largest = 0
    try:
        for path in chain(paths, [valid]):  # one after the other: they share a name
            try:
                examined = decoder.decode(
                    path, bundle, Policy(), folder / "renditions" / "r.png", (2, NOW, 1)
                )
            except FirstreadError as error:
                came_to[type(error).__name__] += 1
                assert path != valid
            else:
                came_to["read" if examined.eligible else "not eligible"] += 1
                assert path != valid or examined.eligible
            for pid in decoder.pids():
                if psutil.pid_exists(pid):
                    largest = max(largest, psutil.Process(pid).memory_info().rss)
    finally:
        decoder.stop()
    assert largest < MEMORY_BYTES
    return came_to


def harmed_files(folder: Path, count: int, seed: int) -> Iterable[Path]:
    """Write so many files in all transfer syntaxes, each harmed where it hurts a decoder."""
    chooser = random.Random(seed)
    exposure = make_exposure(12, (40, 30))
    whole = []
    for syntax in LOSSLESS:
        image = make_radiograph(exposure, 12)
        for keyword, uid in fixed_uids().items():
            setattr(image, keyword, uid)
        whole.append(write_radiograph(image, folder / "whole.dcm", syntax).read_bytes())
    for number in range(count):
        content = bytearray(whole[number % len(whole)])
        at = content.rfind(b"\xe0\x7f\x10\x00")
        for _ in range(chooser.randint(1, 6)):
            start = at + 8 if at > 0 and chooser.random() < 0.8 else 132
            place = start + min(int(chooser.expovariate(1 / 60)), len(content) - start - 1)
            content[place] = chooser.choice([0, 1, 0x7F, 0x80, 0xFF, chooser.randrange(256)])
        if chooser.random() < 0.2:
            del content[chooser.randrange(at, len(content)) :]
        path = folder / "harmed.dcm"
        path.write_bytes(content)
        yield path
