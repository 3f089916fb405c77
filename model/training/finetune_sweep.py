"""Fine-tune over a grid of learning rates and weight decays; val chooses."""

import itertools
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from model.bundles import Bundle
from model.training.candidate import BUNDLE
from model.training.finetune import PREDICTIONS, FinetuneConfig, Finetuned, finetune
from model.training.manifests import Manifest
from model.training.processes import Processes
from model.training.run_beginning import RESULT

RATES = (1e-4, 1e-5, 1e-6)
DECAYS = (0.1, 0.2, 0.3)
TABLE = "sweep.json"


def sweep(
    manifest: Manifest,
    bundle: Bundle,
    out: Path,
    config: FinetuneConfig,
    *,
    rates: Sequence[float] = RATES,
    decays: Sequence[float] = DECAYS,
    device: torch.device,
    processes: Processes,
    say: Callable[[str], None] = lambda _: None,
) -> Finetuned:
    """Run every pair of the grid in a folder of its own; copy the best on val to ``out``.

    Finished runs are kept, so a sweep that was stopped goes on. Over nine runs the best AUC on val
    flatters itself: only test tells how good it is.

    Source: the grid of the check described with arXiv:2511.17043.
    """
    runs: list[Finetuned] = []
    grid = list(itertools.product(rates, decays))
    for rate, decay in grid:
        chosen = config.fit.model_copy(update={"learning_rate": rate, "weight_decay": decay})
        say(f"run {len(runs) + 1} of {len(grid)}: lr {rate:g}, weight decay {decay:g}")
        runs.append(
            finetune(
                manifest,
                bundle,
                out / f"lr-{rate:g}-wd-{decay:g}",
                config.model_copy(update={"fit": chosen}),
                device=device,
                processes=processes,
                say=say,
            )
        )
    best = max(runs, key=lambda run: run.val_auc)
    if processes.rank == 0:
        rows = [
            {
                "learning_rate": rate,
                "weight_decay": decay,
                "val_auc": run.val_auc,
                "val_auc_low": run.val_low,
                "val_auc_high": run.val_high,
                "chosen": run is best,
            }
            for (rate, decay), run in zip(grid, runs, strict=True)
        ]
        (out / TABLE).write_text(json.dumps(rows, indent=2) + "\n")
        shutil.rmtree(out / BUNDLE, ignore_errors=True)
        shutil.copytree(best.folder / BUNDLE, out / BUNDLE)
        for name in (PREDICTIONS, RESULT):
            shutil.copy(best.folder / name, out / name)
    processes.wait()
    return best._replace(folder=out)
