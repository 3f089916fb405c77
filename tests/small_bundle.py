"""A bundle made for a test: a network of random weights that says so, complete in form."""

from pathlib import Path
from typing import Any

import torch

from model.bundles import Bundle
from model.calibrators import LogisticCalibrator
from model.eligibility import EligibilityRules
from model.encoders.compact import CompactSpec
from model.measured import Evaluation, Metrics
from model.network import build_network
from model.operating_points import operating_point
from model.preprocessing import PreprocessingSpec
from model.training.packing import DISCLAIMER, write_bundle, write_half_weights

SIZE_PX = 64
ENCODER = CompactSpec(widths=(8, 16, 24, 32), depths=(1, 1, 1, 1), heads=(1, 2, 3, 4))
CALIBRATOR = LogisticCalibrator(
    method="platt",
    slope=1.5,
    intercept=0.25,
    prevalence=0.5,
    cases=4,
    log_loss=0.6,
    fitted_on="random weights",
)
EVALUATION = Evaluation(name="random weights", abnormal=100, not_abnormal=100, held_out=True)


def write_small_bundle(folder: Path, **changes: object) -> Bundle:
    """Write a bundle with random weights; ``changes`` replace fields of ``Bundle``."""
    torch.manual_seed(0)
    write_half_weights(build_network(ENCODER.model_dump()), folder)
    point = operating_point("default", 0.5, [0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], "random weights")
    fields: dict[str, Any] = {
        "name": "small",
        "version": "0.0.1",
        "pipeline": "chest_xray",
        "encoder": ENCODER.model_dump(),
        "preprocessing": PreprocessingSpec(size_px=SIZE_PX),
        "calibrator": CALIBRATOR,
        "operating_points": (point,),
        "default_operating_point": "default",
        "eligibility": EligibilityRules(),
        "metrics": Metrics(evaluations=(EVALUATION,)),
        "intended_use": "tests",
        "licence": "Apache-2.0",
    }
    return write_bundle(folder, f"{DISCLAIMER}\n\nRandom weights.\n", {**fields, **changes})
