"""Put a bundle's network on the device. The one module here that brings torch in, when called."""

import os
from functools import cache
from typing import TYPE_CHECKING

from worker.models import Pipeline

if TYPE_CHECKING:
    from model.bundles import Bundle


def load_bundle(bundle: "Bundle", device: str) -> Pipeline:
    """Load a bundle's pipeline.

    Raises:
        BundleError: its weights do not fit.
        ConfigurationError: there is no such device.
    """
    from model.pipelines import load_pipeline

    _leave_room_for_decoders()
    return load_pipeline(bundle, device)


@cache
def _leave_room_for_decoders() -> None:
    """Give torch half of the cores: decoding an image costs about as much as a compact model."""
    import torch

    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // 2))
