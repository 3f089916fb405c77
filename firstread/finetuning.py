"""What the command lines of ``finetune`` and ``insight`` mean: choices, devices, processes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
import typer
from pydantic import BaseModel, ValidationError

from common.errors import ConfigurationError
from firstread.naming_bundles import named_bundle
from firstread.torchrun import device_of_rank, read_ranks
from model.pipelines import choose_device
from model.training.feature_store import FeatureStore
from model.training.finetune import FinetuneConfig, finetune
from model.training.finetune_sweep import RATES, sweep
from model.training.insight_job import InsightConfig, train_insight
from model.training.manifests import read_manifest
from model.training.processes import Processes, joined

Config = TypeVar("Config", bound=BaseModel)


def run_finetune(
    manifest: Path,
    reference: str,
    out: Path,
    choices: dict[str, object],
    *,
    device: str,
    sweep_rates: tuple[float, ...] | None = None,
) -> None:
    """Fine-tune, or sweep, on every process that torchrun started; the first says the result."""
    config = checked(FinetuneConfig, choices)
    described, bundle = read_manifest(manifest), named_bundle(reference)
    with processes_on(device) as (processes, chosen):
        if sweep_rates is None:
            made = finetune(
                described, bundle, out, config, device=chosen, processes=processes, say=say
            )
        else:
            rates = sweep_rates or RATES
            made = sweep(
                described,
                bundle,
                out,
                config,
                rates=rates,
                device=chosen,
                processes=processes,
                say=say,
            )
    if processes.rank == 0:
        area = f"{made.val_auc:.4f} ({made.val_low:.4f} to {made.val_high:.4f})"
        typer.echo(f"val AUC {area}: {made.folder}")


def run_insight(
    features: Path, reference: str, out: Path, choices: dict[str, object], *, device: str
) -> None:
    """Train INSIGHT on a store's features; choices that are not given stay INSIGHT's own."""
    own = InsightConfig().fit.model_dump()
    given = choices["fit"]
    fitted = {**own, **given} if isinstance(given, dict) else own
    config = checked(InsightConfig, {**choices, "fit": fitted})
    store, bundle = FeatureStore.open(features), named_bundle(reference)
    with processes_on(device) as (processes, chosen):
        made = train_insight(
            store, bundle, out, config, device=chosen, processes=processes, say=say
        )
    if processes.rank == 0:
        area = f"{made.val_auc:.4f} ({made.val_low:.4f} to {made.val_high:.4f})"
        typer.echo(f"val AUC of INSIGHT {made.insight_auc:.4f}, of the score {area}: {made.folder}")


def checked(kind: type[Config], choices: dict[str, object]) -> Config:
    """Check choices.

    Raises:
        ConfigurationError: one of them is impossible; the message names it.
    """
    try:
        return kind.model_validate(choices)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"{name}: {first['msg']}; see --help") from error


@contextmanager
def processes_on(device: str) -> Iterator[tuple[Processes, torch.device]]:
    """Join the other processes, each with its own device."""
    ranks = read_ranks()
    chosen = choose_device(device_of_rank(device, ranks))
    with joined(ranks.rank, ranks.processes, chosen) as processes:
        yield processes, chosen


def say(line: str) -> None:
    """Tell of progress, at once, on the standard error."""
    typer.echo(line, err=True)
