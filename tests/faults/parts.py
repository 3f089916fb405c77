"""What takes the model's place in fault cases: it gives back the number written into an image.

So every result can be told to belong to its image. Worker processes import this module by name.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import UnreadablePixelsError
from model.bundles import Bundle
from model.eligibility import Policy
from model.examination import Examined
from tests.faults.objects import read_number
from tests.worker_parts import SIDE_PX, BreakingPipeline, EchoPipeline
from worker.batching import Prediction

DEVICE_S = 0.02  # a forward pass


def examine_number(
    path: Path, bundle: Bundle, policy: Policy, rendition: Path, max_pixels: int
) -> Examined:
    """Read the number in the pixels of one archived object; no decoding to speak of."""
    content = path.read_bytes()
    if content[128:132] != b"DICM":
        raise UnreadablePixelsError("not what was sent")
    pixels = np.full((SIDE_PX, SIDE_PX), read_number(content), dtype=np.float32)
    return Examined(True, (), pixels, (64.0, 0.0, 0.0, 0.0, 64.0, 0.0), 64, 64)


def load_number(bundle: Bundle, device: str) -> EchoPipeline:
    """Load the model that gives the number back."""
    return EchoPipeline(delay_s=DEVICE_S)


def load_slow_number(bundle: Bundle, device: str) -> EchoPipeline:
    """Load one that takes its time, so that work is always under way when a case strikes."""
    return EchoPipeline(delay_s=0.25)


class OutOfMemoryError(RuntimeError):
    """What torch raises when the device has no room, by the name that the batcher knows."""


class SmallDevice(EchoPipeline):
    """A device with room for two images."""

    def predict(self, images: NDArray[np.float32]) -> Sequence[Prediction]:
        """Score images, float32 (B, S, S)."""
        if len(images) > 2:
            raise OutOfMemoryError("device out of memory")
        return super().predict(images)


def load_on_small_device(bundle: Bundle, device: str) -> SmallDevice:
    """Load the model on a device with room for two images."""
    return SmallDevice(delay_s=DEVICE_S)


class FailingModel(EchoPipeline):
    """Answers its warm-up image and no other."""

    def predict(self, images: NDArray[np.float32]) -> Sequence[Prediction]:
        """Score images, float32 (B, S, S)."""
        if images.any():
            raise RuntimeError("this model fails for ever")
        return super().predict(images)


def load_one_failing(bundle: Bundle, device: str) -> EchoPipeline:
    """Load a model of phantoms that fails on every image, and a good one of the rest."""
    return FailingModel() if bundle.pipeline == "phantom" else EchoPipeline(delay_s=DEVICE_S)


def load_one_breaking(bundle: Bundle, device: str) -> EchoPipeline:
    """Load a model of phantoms that answers nothing after its first image."""
    return BreakingPipeline() if bundle.pipeline == "phantom" else EchoPipeline(delay_s=DEVICE_S)


def load_one_unloadable(bundle: Bundle, device: str) -> EchoPipeline:
    """Load all but the model of phantoms, whose weights are damaged."""
    if bundle.pipeline == "phantom":
        raise RuntimeError("the weights do not fit")
    return EchoPipeline(delay_s=DEVICE_S)


VERSION_STEP = 1_000_000  # float32 still tells every number from its neighbours


class VersionedModel(EchoPipeline):
    """Adds its version to the number, so that a score says which version gave it."""

    def __init__(self, version: int) -> None:
        super().__init__(delay_s=DEVICE_S)
        self.version = version

    def predict(self, images: NDArray[np.float32]) -> Sequence[Prediction]:
        """Score images, float32 (B, S, S)."""
        return super().predict(images + np.float32(VERSION_STEP * self.version))


def load_versioned(bundle: Bundle, device: str) -> VersionedModel:
    """Load the model that says which version it is."""
    return VersionedModel(int(bundle.version.partition(".")[0]))


def load_bound(bundle: Bundle, device: str) -> EchoPipeline:
    """Load a model that takes 100 ms for a batch and no CPU: the device is what bounds a worker."""
    return EchoPipeline(delay_s=0.1)
