"""Train ``chest_ct`` as far as a few patients allow, and say what they show.

Run: ``python -m model.training.chest_ct --data ../shared/data/ct --out runs/chest_ct``
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.errors import TrainingDataError
from model.bundles import SHIPPED, Bundle, find_bundles, read_bundle
from model.ct.hounsfield_window import HounsfieldWindow
from model.ct.network import SeriesNetwork
from model.eligibility import EligibilityRules
from model.encoders.encoder import Encoder
from model.measured import Metrics
from model.pipelines import load_encoder
from model.preprocessing import PreprocessingSpec
from model.training.chest_ct_card import INTENDED_USE, chest_ct_card
from model.training.ct_insight import CtTrainingConfig, EncodedPatient, fit_insight
from model.training.ct_left_out import LeftOut, leave_out
from model.training.ct_patients import encode_patient, fingerprint, read_patients
from model.training.loop import report
from model.training.packing import write_bundle, write_half_weights
from model.training.run_record import write_run_record

NAME, VERSION = "chest_ct_few", "0.1.0"
BUNDLE, RESULTS, ENCODED, SERIES = "bundle", "results.json", "encoded", "series"


def train_chest_ct(
    data: Path, out: Path, config: CtTrainingConfig, encoder_bundle: Bundle
) -> Bundle:
    """Leave each patient out in turn, then fit to all and write a bundle; everything in ``out``.

    What a stopped run has encoded and fitted is not done again.

    Raises:
        TrainingDataError: the data cannot be used, or ``out`` holds another run.
    """
    described: dict[str, object] = {
        "fingerprint": fingerprint(data),
        "encoder": f"{encoder_bundle.name} {encoder_bundle.version}",
        "encoder_sha256": encoder_bundle.sha256,
    }
    _require_same_run(out, config, described)
    record = write_run_record(out, config, described)
    window = HounsfieldWindow()
    spec = PreprocessingSpec(
        size_px=encoder_bundle.preprocessing.size_px,
        stretch=False,
        mean=encoder_bundle.preprocessing.mean,
        std=encoder_bundle.preprocessing.std,
    )
    encoder = load_encoder(encoder_bundle)
    patients, told = _encode(data, out, encoder, window, spec)
    results = [
        leave_out(patients, number, config, out / "folds", told[number])
        for number in range(len(patients))
    ]
    (out / RESULTS).write_text(json.dumps([one.model_dump() for one in results], indent=2) + "\n")
    network = SeriesNetwork(encoder)
    network.insight.load_state_dict(fit_insight(patients, config, seed=0).state_dict())
    report("fitted to all patients; writing the bundle")
    write_half_weights(network, out / BUNDLE)
    fields = {
        "name": NAME,
        "version": VERSION,
        "pipeline": "chest_ct",
        "encoder": encoder_bundle.encoder,
        "preprocessing": spec,
        "hounsfield_window": window,
        "eligibility": EligibilityRules(modalities=("CT",), frontal_only=False),
        "metrics": Metrics(further=_figures(results)),
        "training": record,
        "intended_use": INTENDED_USE,
        "licence": "Apache-2.0 for the code; the weights follow the terms of the data",
    }
    return write_bundle(out / BUNDLE, chest_ct_card(results, config, record, window), fields)


def _encode(
    data: Path, out: Path, encoder: Encoder, window: HounsfieldWindow, spec: PreprocessingSpec
) -> tuple[list[EncodedPatient], list[dict[str, Any]]]:
    """Encode every patient's slices and their mirror images, once."""
    folder = out / ENCODED
    folder.mkdir(parents=True, exist_ok=True)
    patients, told = [], []
    for patient in read_patients(data, out / SERIES, window, spec):
        kept = folder / f"{patient.patient_id}.npy"
        if not kept.exists():
            report(f"encoding {patient.patient_id}: {len(patient.slices)} slices, both ways round")
            views = [encode_patient(patient, encoder, mirrored=way) for way in (False, True)]
            unfinished = kept.with_suffix(".part.npy")
            np.save(unfinished, np.stack(views), allow_pickle=False)
            unfinished.rename(kept)
        views = np.load(kept, allow_pickle=False)
        patients.append(EncodedPatient(patient.patient_id, patient.infected, tuple(views)))
        told.append({"diagnosis": patient.diagnosis, "remarks": patient.remarks})
    if len(patients) < 2:
        raise TrainingDataError(f"{data}: to leave one patient out takes two at least")
    return patients, told


def _figures(results: Sequence[LeftOut]) -> dict[str, float]:
    figures = {}
    for one in results:
        figures[f"left_out_{one.patient}_series_probability"] = float(np.mean(one.probability))
        if one.slice_auc is not None and one.slice_auc_by_position_alone is not None:
            figures[f"left_out_{one.patient}_slice_auc"] = float(np.mean(one.slice_auc))
            figures[f"left_out_{one.patient}_position_auc"] = one.slice_auc_by_position_alone
    return figures


def _require_same_run(out: Path, config: CtTrainingConfig, described: dict[str, object]) -> None:
    """Keep what was fitted to other data or by other choices apart."""
    record = out / "run.json"
    if not record.exists():
        return
    earlier = json.loads(record.read_text())
    if (earlier["config"], earlier["data"]) != (config.model_dump(mode="json"), described):
        raise TrainingDataError(f"{out} holds a run with other data or choices: name another")


def newest_radiograph_bundle() -> Bundle:
    """Give the shipped bundle whose encoder stands in for DINOv2, which cannot be had offline."""
    return [one for one in find_bundles(SHIPPED) if one.pipeline == "chest_xray"][-1]


def main() -> None:
    """Read the command line, train, and say where the result lies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with volumes.csv")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--encoder", type=Path, help="bundle that encodes; default: the shipped")
    parser.add_argument("--steps", type=int, default=CtTrainingConfig().steps)
    parser.add_argument("--seeds", type=int, default=CtTrainingConfig().seeds)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    bundle = read_bundle(arguments.encoder) if arguments.encoder else newest_radiograph_bundle()
    config = CtTrainingConfig(steps=arguments.steps, seeds=arguments.seeds)
    written = train_chest_ct(arguments.data, arguments.out, config, bundle)
    report(f"{written.folder}: {written.name} {written.version}, research only")


if __name__ == "__main__":
    main()
