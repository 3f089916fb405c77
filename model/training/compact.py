"""Train the compact encoder with its heads on real radiographs, in two phases.

Run: ``python -m model.training.compact --data ../shared/data/cxr --out runs/compact``, then
``python -m model.training.compact --data ../shared/data/cxr --out runs/compact_second
--begin-with runs/compact``
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from model.evaluation.discrimination import auc
from model.network import TriageNetwork, build_network
from model.training import near_neighbours
from model.training.cases import Case, boxed_paths, fingerprint, of_dataset, read_cases
from model.training.compact_recipe import ENCODER, Phase, first_phase, second_phase
from model.training.compact_start import Start, read_start
from model.training.loop import report, train
from model.training.predictions import predict_images
from model.training.radiographs import Radiographs, load_images
from model.training.run_record import settle_choices, write_run_record

NEIGHBOURS_PX = 128


@dataclass(frozen=True)
class Selection:
    """The cases that may be trained on, and how many were left out for which reason."""

    train: list[Case]
    left_out: dict[str, int]


def select_training_cases(
    cases: list[Case],
    boxes: Path,
    without: frozenset[str] = frozenset(),
    *,
    disputed: bool = True,
) -> Selection:
    """Leave out every patient with lesion boxes and every near neighbour of honest test images.

    ``without`` names data sets that are left out whole; ``disputed`` False leaves out what two
    sources label differently.
    """
    of_train = [case for case in cases if case.split == "train" and case.dataset not in without]
    boxed = boxed_paths(of_train, boxes)
    near = near_neighbour_paths(cases)
    of_two_minds = {case.path for case in of_train if case.disputed and not disputed}
    return Selection(
        train=[case for case in of_train if case.path not in boxed | near | of_two_minds],
        left_out={
            "patient_with_boxes": len(boxed),
            "crd_normal_near_neighbour": len(near - boxed),
            "disputed": len(of_two_minds - boxed),
        },
    )


def near_neighbour_paths(cases: list[Case]) -> set[Path]:
    """Name the ``crd_normal`` images of train that look like an NIH image of val or test."""
    adults = [case for case in cases if case.adult]
    embeddings = near_neighbours.embed(load_images(adults, NEIGHBOURS_PX))
    candidates = of_dataset(adults, {"crd_normal"}, {"train"}, adult=True)
    protected = of_dataset(adults, {"nih_cxr14"}, {"val", "test"}, adult=True)
    cosine = near_neighbours.nearest_cosine(embeddings[candidates], embeddings[protected])
    return {adults[row].path for row in candidates[cosine > near_neighbours.THRESHOLD]}


def train_compact(
    data: Path,
    out: Path,
    phase: Phase,
    without: frozenset[str] = frozenset(),
    start: Start | None = None,
) -> TriageNetwork:
    """Train or resume; the checkpoint and the record of the run lie in ``out``.

    Raises:
        ConfigurationError: ``out`` was begun with other choices.
    """
    config = phase.config
    torch.manual_seed(config.seed)
    cases = read_cases(data)
    boxes = data.parent / "boxes" / "boxes.csv"
    selection = select_training_cases(cases, boxes, without, disputed=phase.disputed)
    report(f"{len(selection.train)} training images; left out: {selection.left_out}")
    chosen: dict[str, object] = {
        "fingerprint": fingerprint(cases),
        "train_images": len(selection.train),
        "left_out": selection.left_out,
        "without": sorted(without),
        "near_neighbour_cosine": near_neighbours.THRESHOLD,
        **phase.described(),
        "start": start and start.described(),
    }
    settle_choices(out, {"config": config.model_dump(mode="json"), "data": chosen})
    write_run_record(out, config, chosen)
    network = build_network(
        ENCODER.model_dump(), drop_path=config.drop_path, dropout=config.dropout
    )
    if start is not None:
        network.load_state_dict(start.weights)
    watched = [cases[row] for row in of_dataset(cases, {"nih_cxr14"}, {"val"}, adult=True)]
    labels = np.array([case.abnormal for case in watched])

    def measure(average: TriageNetwork, size_px: int) -> dict[str, float]:
        predicted = predict_images(average, load_images(watched, size_px), config.mean, config.std)
        return {
            "val_auc": auc(labels, predicted.score),
            "val_insight_auc": auc(labels, predicted.insight_probability),
        }

    radiographs = Radiographs(selection.train, phase.shares)
    return train(network, radiographs, config, phase.augmentation, out / "checkpoint", measure)


def main() -> None:
    """Read the command line, train, and say where the result lies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with cxr.csv and images/")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without", nargs="*", default=[], help="data sets to leave out")
    parser.add_argument(
        "--begin-with", type=Path, help="run or bundle that the second phase goes on from"
    )
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    start = None if arguments.begin_with is None else read_start(arguments.begin_with)
    phase = (first_phase if start is None else second_phase)(arguments.seed)
    train_compact(arguments.data, arguments.out, phase, frozenset(arguments.without), start)


if __name__ == "__main__":
    main()
