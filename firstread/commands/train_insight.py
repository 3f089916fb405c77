"""``firstread train insight``: train the head that says where."""

from pathlib import Path
from typing import Annotated

import typer


def insight(
    bundle: Annotated[
        str, typer.Option("--bundle", help="Whose encoder: folder, NAME or NAME@VERSION")
    ],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder of the run")],
    features: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Store made by `firstread train features`"),
    ] = None,
    joint: Annotated[
        Path | None,
        typer.Option(
            metavar="MANIFEST", help="Instead: train INSIGHT with the encoder, on these images"
        ),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--lr", help="Default: 1e-3, with --joint 1e-5")
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(help="Default: 0.05, with --joint 0.2")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Default: 30, with --joint 10")] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images a step; default: 32, with --joint 48")
    ] = None,
    chunk: Annotated[
        int | None, typer.Option(min=1, help="Images a forward pass; default: 32, with --joint 12")
    ] = None,
    decoupling: Annotated[float, typer.Option(help="Lambda of spectral decoupling")] = 0.01,
    keep_head: Annotated[
        bool, typer.Option("--keep-head", help="Go on from the bundle's own INSIGHT")
    ] = False,
    device: Annotated[str, typer.Option(help='"auto", "cpu", "cuda" or "cuda:1"')] = "auto",
    seed: Annotated[int, typer.Option(help="Of the head and the order")] = 0,
) -> None:
    """Train INSIGHT on cached features, or jointly with the encoder; write a candidate bundle.

    INSIGHT's log odds are part of the score, so the triage head is fitted anew over them, by
    cross-validation over patients. Resumable and shared among processes as `finetune` is. The
    candidate has no probabilities before `firstread train calibrate`.
    """
    from common.errors import ConfigurationError
    from firstread.finetuning import run_finetune, run_insight

    given = {
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "epochs": epochs,
        "batch_size": batch,
        "chunk_size": chunk,
        "seed": seed,
    }
    fit = {name: value for name, value in given.items() if value is not None}
    if (features is None) == (joint is None):
        raise ConfigurationError("name either --features STORE or --joint MANIFEST")
    if joint is not None:
        choices: dict[str, object] = {
            "fit": fit,
            "insight_share": 1.0,
            "new_insight": not keep_head,
        }
        run_finetune(joint, bundle, out, choices, device=device)
    elif features is not None:
        choices = {"fit": fit, "decoupling": decoupling, "new_head": not keep_head}
        run_insight(features, bundle, out, choices, device=device)
