"""The real radiographs as a training set, cached in memory at each input size."""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from model.preprocessing import PreprocessingSpec, prepare, resize_and_stretch
from model.training.cases import FINDINGS, Case, read_case
from model.training.loop import Batch
from model.training.sampling import SHARES, Shares, sampling_probabilities


class Radiographs:
    """Cases drawn by their sampling probabilities, resized and stretched as the encoder needs."""

    findings = len(FINDINGS)

    def __init__(self, cases: list[Case], shares: Shares = SHARES) -> None:
        self.cases = cases
        self._chances = sampling_probabilities(cases, shares)
        self._target = np.array([case.abnormal for case in cases], dtype=np.float32)
        self._findings = np.stack([_finding_row(case) for case in cases])
        self._images = lru_cache(maxsize=1)(lambda size_px: load_images(self.cases, size_px))

    def draw(self, count: int, size_px: int, generator: np.random.Generator) -> Batch:
        """Draw cases with replacement, balanced by source and label."""
        rows = generator.choice(len(self.cases), size=count, p=self._chances)
        images = torch.from_numpy(self._images(size_px)[rows]).float() / 255
        target = torch.from_numpy(self._target[rows])
        return Batch(images, target, torch.from_numpy(self._findings[rows]))


def load_images(cases: list[Case], size_px: int) -> NDArray[np.uint8]:
    """Read all cases, resized and stretched as for the model; uint8 (N, S, S) to save memory."""
    spec = PreprocessingSpec(size_px=size_px)
    images = np.empty((len(cases), size_px, size_px), dtype=np.uint8)
    for row, case in enumerate(cases):
        images[row] = np.rint(resize_and_stretch(read_case(case), spec) * 255)
    return images


def load_prepared(cases: list[Case], spec: PreprocessingSpec) -> NDArray[np.float32]:
    """Read all cases exactly as the worker would: prepared, float32 (N, S, S)."""
    return np.stack([prepare(read_case(case), spec).pixels for case in cases])


def _finding_row(case: Case) -> NDArray[np.float32]:
    if case.findings is None:
        return np.full(len(FINDINGS), np.nan, dtype=np.float32)
    return np.array([finding in case.findings for finding in FINDINGS], dtype=np.float32)
