"""Compare arms of the compact network on the adults of NIH val, before any of them sees test.

Run: ``python -m model.training.compact_arms --data ../shared/data/cxr
first=runs/compact second=runs/compact_second mean=runs/compact+runs/compact_second``

An arm is a run or a bundle; two joined by ``+`` are the mean of their weights, which makes sense
only where one began with the other.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model.evaluation.discrimination import auc, auc_interval, paired_auc_difference
from model.evaluation.within_strata import auc_within
from model.network import build_network
from model.preprocessing import PreprocessingSpec
from model.training.cases import Case, of_dataset, read_cases
from model.training.compact import select_training_cases
from model.training.compact_recipe import ENCODER
from model.training.compact_start import mean_of_starts, read_start
from model.training.predictions import predict_images
from model.training.radiographs import load_prepared
from model.training.thumbnail_baseline import fit_thumbnail_baseline

HEADER = (
    "| arm | px | AUC | AP | PA | within views | against the first arm | against thumbnails |",
    "|---|---|---|---|---|---|---|---|",
)


def compare_arms(data: Path, arms: dict[str, list[Path]]) -> list[str]:
    """Give the lines of a table in Markdown, the thumbnails' last; differences by paired DeLong."""
    cases = read_cases(data)
    watched = [cases[row] for row in of_dataset(cases, {"nih_cxr14"}, {"val"}, adult=True)]
    boxes = data.parent / "boxes" / "boxes.csv"
    of_thumbnails = fit_thumbnail_baseline(select_training_cases(cases, boxes).train).score(watched)
    scores = {name: score_arm(folders, watched) for name, folders in arms.items()}
    first = next(iter(scores.values()))[1]
    lines = [
        _line(name, str(px), score, watched, first, of_thumbnails)
        for name, (px, score) in scores.items()
    ]
    last = _line("thumbnails", "32", of_thumbnails, watched, first, of_thumbnails)
    return [*HEADER, *lines, last]


def score_arm(folders: list[Path], cases: list[Case]) -> tuple[int, NDArray[np.float64]]:
    """Give the input size of an arm, and the raw score of each case, float64 (N,)."""
    start = mean_of_starts([read_start(folder) for folder in folders])
    network = build_network(ENCODER.model_dump())
    network.load_state_dict(start.weights)
    images = load_prepared(cases, PreprocessingSpec(size_px=start.size_px))
    return start.size_px, predict_images(network, images, mean=0.0, std=1.0).score


def _line(
    name: str,
    px: str,
    score: NDArray[np.float64],
    cases: list[Case],
    first: NDArray[np.float64],
    of_thumbnails: NDArray[np.float64],
) -> str:
    labels = np.array([case.abnormal for case in cases])
    area = auc_interval(labels, score)
    views = np.array([case.view for case in cases])
    by_view = [f"{auc(labels[views == view], score[views == view]):.3f}" for view in ("AP", "PA")]
    within = f"{auc_within(labels, score, views):.3f}"
    differences = []
    for other in (first, of_thumbnails):
        found = paired_auc_difference(labels, score, other)
        interval = f"{found.low:+.3f} to {found.high:+.3f}"
        differences.append(f"{found.difference:+.3f} ({interval}), p {found.p_value:.3f}")
    figures = f"{area.auc:.3f} ({area.low:.3f} to {area.high:.3f})"
    return f"| {' | '.join([name, px, figures, *by_view, within, *differences])} |"


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with cxr.csv and images/")
    parser.add_argument("arms", nargs="+", help="NAME=FOLDER or NAME=FOLDER+FOLDER")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    named = dict(arm.split("=", 1) for arm in arguments.arms)
    arms = {name: [Path(one) for one in folders.split("+")] for name, folders in named.items()}
    sys.stdout.write("\n".join(compare_arms(arguments.data, arms)) + "\n")


if __name__ == "__main__":
    main()
