"""Parts to build a worker from: objects that behave as their content says, a model that adds up.

An object is a small text file. Spawned processes import this module, so everything in it can be
passed to them by name.
"""

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from common.errors import StorageUnavailableError, UnreadablePixelsError
from model.bundles import Bundle, write_description
from model.calibrators import LogisticCalibrator
from model.eligibility import EligibilityRules, Policy
from model.examination import Examined
from model.measured import Evaluation, Metrics
from model.operating_points import OperatingPoint, Proportion
from model.preprocessing import PreprocessingSpec
from worker.batching import Prediction

SIDE_PX = 16
POISON, NOT_FINITE, DEADLY = 1001.0, 1002.0, 1003.0  # scores that the model chokes on


class Answer:
    """One prediction."""

    def __init__(self, score: float) -> None:
        self.score = score
        self.insight_probability = 0.9 if score > 1 else 0.1
        self.heatmap = np.full((2, 3), 0.5, dtype=np.float16)


class EchoPipeline:
    """Says of an image the score that stands in its first pixel; remembers its batches."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.batches: list[list[float]] = []
        self.delay_s = delay_s
        self.broken = False

    def predict(self, images: NDArray[np.float32]) -> Sequence[Prediction]:
        """Score images, float32 (B, S, S)."""
        scores = [float(image[0, 0]) for image in images]
        self.batches.append(scores)
        if DEADLY in scores:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.broken or POISON in scores:
            raise RuntimeError("the device says no")
        time.sleep(self.delay_s)
        return [Answer(float("nan") if score == NOT_FINITE else score) for score in scores]

    def warm_up(self) -> None:
        """Score an image known to be good."""
        self.predict(np.zeros((1, SIDE_PX, SIDE_PX), dtype=np.float32))


class BreakingPipeline(EchoPipeline):
    """Breaks for good at its first real image, as a device does."""

    def predict(self, images: NDArray[np.float32]) -> Sequence[Prediction]:
        """Score images, float32 (B, S, S)."""
        self.broken = self.broken or bool(images.any())
        return super().predict(images)


def load_breaking(bundle: Bundle, device: str) -> BreakingPipeline:
    """Load one whose device does not last."""
    return BreakingPipeline()


def load_echo(bundle: Bundle, device: str) -> EchoPipeline:
    """Load the model that echoes."""
    return EchoPipeline()


def load_slow_echo(bundle: Bundle, device: str) -> EchoPipeline:
    """Load one that takes its time, so that a test can strike in the middle."""
    return EchoPipeline(delay_s=0.2)


def image_of(score: float) -> NDArray[np.float32]:
    """Make the encoder's input whose score this is."""
    return np.full((SIDE_PX, SIDE_PX), score, dtype=np.float32)


def examine_text(
    path: Path, bundle: Bundle, policy: Policy, rendition: Path, max_pixels: int
) -> Examined:
    """Behave as the object says: ``score 1.5``, ``hang``, ``die``, ``devour``, …"""
    word, _, value = path.read_text().strip().partition(" ")
    if word == "hang":
        time.sleep(60)
    if word == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if word == "devour":
        np.zeros(1 << 40, dtype=np.uint8)
    if word == "unreadable":
        raise UnreadablePixelsError("pixel data cut off \0 here")
    if word == "offline":
        raise StorageUnavailableError("archive: Input/output error")
    if word == "defect":
        raise KeyError("a slip of ours")
    if word == "ineligible":
        return Examined(False, ("under 18 years",), rows=4, columns=5)
    affine = (40.0, 0.0, 0.0, 0.0, 30.0, 0.0)
    return Examined(True, ("no view position stated",), image_of(float(value)), affine, 30, 40)


def examine_anything(
    path: Path, bundle: Bundle, policy: Policy, rendition: Path, max_pixels: int
) -> Examined:
    """Find every object that is there eligible, whatever it shows."""
    if not path.stat().st_size:
        raise UnreadablePixelsError("an empty file")
    affine = (40.0, 0.0, 0.0, 0.0, 30.0, 0.0)
    return Examined(True, (), image_of(0.5), affine, 30, 40)


def imported_modules(
    path: Path, bundle: Bundle, policy: Policy, rendition: Path, max_pixels: int
) -> tuple[set[str], dict[str, int]]:
    """Say what a decoding process has imported, and with how many threads it computes."""
    import cv2

    return set(sys.modules), {"cv2": cv2.getNumThreads()}


def make_bundle(
    folder: Path,
    *,
    version: str = "1.0.0",
    complete: bool = True,
    threshold: float = 0.5,
    pipeline: str = "chest_xray",
) -> Bundle:
    """Write a bundle whose weights mean nothing: for tests that bring their own pipeline."""
    folder.mkdir(parents=True)
    save_file({"triage.weight": np.zeros(1, dtype=np.float32)}, folder / "weights.safetensors")
    (folder / "card.md").write_text(f"# Echo {version}\n")
    proportion = Proportion(value=0.9, lower_bound=0.8, n=100)
    point = OperatingPoint(
        name="default",
        threshold=threshold,
        sensitivity=proportion,
        specificity=proportion,
        flag_rate=0.5,
        chosen_on="nothing",
    )
    evaluation = Evaluation(name="none", abnormal=100, not_abnormal=100, held_out=True)
    return write_description(
        folder,
        {
            "name": "echo",
            "version": version,
            "pipeline": pipeline,
            "encoder": {},
            "preprocessing": PreprocessingSpec(size_px=SIDE_PX),
            "calibrator": LogisticCalibrator(
                method="platt", slope=1, prevalence=0.5, cases=1, log_loss=0.1, fitted_on="nothing"
            ),
            "operating_points": (point,) if complete else (),
            "default_operating_point": "default" if complete else None,
            "eligibility": EligibilityRules(),
            "metrics": Metrics(evaluations=(evaluation,) if complete else ()),
            "intended_use": "tests",
            "licence": "Apache-2.0",
        },
    )
