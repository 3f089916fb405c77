"""Harmed compressed images in the worker's decoding children: a short part of make faults."""

from pathlib import Path

from tests.faults.poisoned_decoding import decode_all, harmed_files
from tests.worker_parts import make_bundle


def test_harmed_images_cost_the_worker_nothing_but_themselves(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    came_to = decode_all(harmed_files(tmp_path, 120, seed=1), bundle, tmp_path)
    assert came_to.total() == 121
    assert came_to["UnreadablePixelsError"] > 20
    assert came_to["read"] > 1
