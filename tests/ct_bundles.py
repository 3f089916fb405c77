"""A ``chest_ct`` bundle made for a test: random weights, and says so."""

from pathlib import Path
from typing import Any

import torch

from model.bundles import Bundle
from model.ct.hounsfield_window import HounsfieldWindow
from model.ct.network import build_series_network
from model.eligibility import EligibilityRules
from model.preprocessing import PreprocessingSpec
from model.training.packing import DISCLAIMER, write_bundle, write_half_weights
from tests.small_bundle import ENCODER, SIZE_PX


def write_ct_bundle(
    folder: Path, encoder: dict[str, Any] | None = None, **changes: object
) -> Bundle:
    """Write a bundle with random weights; ``changes`` replace fields of ``Bundle``."""
    torch.manual_seed(0)
    spec = encoder or ENCODER.model_dump()
    write_half_weights(build_series_network(spec), folder)
    fields: dict[str, Any] = {
        "name": "small_ct",
        "version": "0.0.1",
        "pipeline": "chest_ct",
        "encoder": spec,
        "preprocessing": PreprocessingSpec(size_px=SIZE_PX, stretch=False),
        "hounsfield_window": HounsfieldWindow(),
        "eligibility": EligibilityRules(modalities=("CT",), frontal_only=False),
        "intended_use": "tests",
        "licence": "Apache-2.0",
    }
    return write_bundle(folder, f"{DISCLAIMER}\n\nRandom weights.\n", {**fields, **changes})
