"""Train the small model of the demo on generated phantoms, and pack it into its bundle.

Run: ``python -m model.training.phantom --out runs/phantom --bundle runs/phantom-1.0.0``
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from model.bundles import Bundle
from model.calibration import fit_calibrator
from model.eligibility import EligibilityRules
from model.encoders.compact import CompactSpec
from model.evaluation.discrimination import auc
from model.evaluation.evaluate import evaluate
from model.evaluation.localisation import points_at_a_box
from model.measured import Metrics
from model.network import TriageNetwork, build_network
from model.operating_points import operating_point
from model.preprocessing import PreprocessingSpec
from model.training.augmentation import Augmentation
from model.training.loop import Stage, TrainingConfig, train
from model.training.packing import DISCLAIMER, evaluation_table, write_bundle, write_half_weights
from model.training.phantom_set import (
    PhantomImages,
    PhantomSet,
    generator_fingerprint,
    phantom_images,
    stretched,
)
from model.training.predictions import Predicted, predict_images
from model.training.run_record import write_run_record

ENCODER = CompactSpec(widths=(16, 32, 64, 96), depths=(1, 1, 2, 1), heads=(1, 2, 4, 6))
SIZE_PX = 192
CELL_PX = 16
TRAIN_SEEDS = (0, 900)
CALIBRATION_SEEDS = (1_000_000, 1_000_100)
TEST_SEEDS = (1_000_100, 1_000_300)
CONFIG = TrainingConfig(
    stages=(Stage(size_px=SIZE_PX, samples=24_000),),
    learning_rate=1.5e-3,
    warmup_samples=1000,
    average_steps=60,
    drop_path=0.0,
    dropout=0.0,
    label_smoothing=0.02,
    insight_share=0.5,
    save_every=100,
)
IN_PLACE = Augmentation(
    rotation_deg=0, log_scale=0, log_aspect=0, shift=0, flip=0, sharpness=0.5, noise=0.02, erase=0
)
INTENDED_USE = (
    "Demonstration on simulated images that Firstread's own scanner generates. It has never seen"
    " a radiograph and refuses every image without the simulator's tag."
)


def train_phantom(out: Path, cache: Path, config: TrainingConfig) -> TriageNetwork:
    """Train or resume; the checkpoint and the record of the run lie in ``out``."""
    torch.manual_seed(config.seed)
    phantoms = phantom_images(*TRAIN_SEEDS, cache)
    watched = phantom_images(*CALIBRATION_SEEDS, cache)
    network = build_network(ENCODER.model_dump())

    def measure(average: TriageNetwork, size_px: int) -> dict[str, float]:
        predicted = predict(average, watched, size_px, config)
        return {
            "auc": auc(watched.lesion, predicted.score),
            "pointing": pointing_rate(watched, predicted),
        }

    training_set = PhantomSet(phantoms, CELL_PX)
    return train(network, training_set, config, IN_PLACE, out / "checkpoint", measure)


def predict(
    network: TriageNetwork, phantoms: PhantomImages, size_px: int, config: TrainingConfig
) -> Predicted:
    """Predict phantoms as the worker would."""
    return predict_images(network, stretched(phantoms.images, size_px), config.mean, config.std)


def pointing_rate(phantoms: PhantomImages, predicted: Predicted) -> float:
    """Give the share of phantoms with lesions whose hottest cell lies on one."""
    return float(
        np.mean(
            [
                points_at_a_box(heatmap, [tuple(box) for box in boxes if np.isfinite(box[0])])
                for heatmap, boxes, lesion in zip(
                    predicted.heatmap, phantoms.boxes, phantoms.lesion, strict=True
                )
                if lesion
            ]
        )
    )


def pack_phantom(
    network: TriageNetwork, folder: Path, cache: Path, record: dict[str, object]
) -> Bundle:
    """Calibrate on seeds not trained on, evaluate on others again, write the bundle."""
    config = CONFIG
    network = write_half_weights(network, folder)
    chosen_on = phantom_images(*CALIBRATION_SEEDS, cache)
    tested_on = phantom_images(*TEST_SEEDS, cache)
    on_chosen = predict(network, chosen_on, SIZE_PX, config)
    on_tested = predict(network, tested_on, SIZE_PX, config)
    named = f"phantoms of seeds {CALIBRATION_SEEDS[0]} to {CALIBRATION_SEEDS[1] - 1}"
    calibrator = fit_calibrator(on_chosen.score, chosen_on.lesion, fitted_on=named)
    probabilities = [calibrator.calibrate(score) for score in on_chosen.score]
    point = operating_point("default", 0.5, probabilities, chosen_on.lesion, named)
    name = f"phantoms of seeds {TEST_SEEDS[0]} to {TEST_SEEDS[1] - 1}"
    test = evaluate(name, on_tested.score, tested_on.lesion, calibrator, point.threshold)
    pointing = pointing_rate(tested_on, on_tested)
    card = CARD_TEXT.format(
        disclaimer=DISCLAIMER,
        intended_use=INTENDED_USE,
        first=TRAIN_SEEDS[0],
        last=TRAIN_SEEDS[1] - 1,
        table=evaluation_table([test]),
        pointing=pointing,
        n=int(tested_on.lesion.sum()),
    )
    support = float(np.quantile(on_chosen.insight_probability[chosen_on.lesion], 0.05))
    return write_bundle(
        folder,
        card,
        {
            "name": "phantom",
            "version": "1.0.0",
            "pipeline": "phantom",
            "encoder": ENCODER.model_dump(),
            "preprocessing": PreprocessingSpec(size_px=SIZE_PX, mean=config.mean, std=config.std),
            "calibrator": calibrator,
            "operating_points": (point,),
            "default_operating_point": point.name,
            "insight_support": support,
            "eligibility": EligibilityRules(phantoms_only=True),
            "metrics": Metrics(
                headline=test.name, evaluations=(test,), further={"pointing_rate": pointing}
            ),
            "training": record,
            "intended_use": INTENDED_USE,
            "licence": "Apache-2.0",
        },
    )


CARD_TEXT = """{disclaimer}

# phantom 1.0.0

{intended_use}

Trained on the phantoms of seeds {first} to {last}, each once with lesions and once without. The
places of the lesions were shown to INSIGHT in training: its heatmap here is supervised, unlike that
of the models for radiographs. Calibrated on other seeds; evaluated on others again:

{table}

The hottest cell of the heatmap lies on a lesion, or within half a cell of one, in {pointing:.3f} of
{n} phantoms with lesions.

Phantoms are far easier than radiographs. These figures say that the software works, and nothing
about medicine.
"""


def main() -> None:
    """Read the command line, train, pack."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data: dict[str, object] = {"generator": generator_fingerprint(), "train_seeds": TRAIN_SEEDS}
    record = write_run_record(arguments.out, CONFIG, data)
    cache = arguments.out / "phantoms"
    network = train_phantom(arguments.out, cache, CONFIG)
    pack_phantom(network, arguments.bundle, cache, record)


if __name__ == "__main__":
    main()
