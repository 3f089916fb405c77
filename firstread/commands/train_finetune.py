"""``firstread train finetune``: train a bundle's encoder and heads end to end."""

from pathlib import Path
from typing import Annotated

import typer


def finetune(
    manifest: Annotated[Path, typer.Argument(help="CSV made by `firstread train manifest`")],
    bundle: Annotated[
        str,
        typer.Option("--bundle", "--encoder", help="Where to start: folder, NAME or NAME@VERSION"),
    ],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder of the run")],
    learning_rate: Annotated[float, typer.Option("--lr", help="Greatest learning rate")] = 1e-5,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW")] = 0.2,
    epochs: Annotated[int, typer.Option(min=1, help="Times that each image is seen")] = 10,
    batch: Annotated[int, typer.Option(min=1, help="Images a step, over all processes")] = 48,
    chunk: Annotated[
        int, typer.Option(min=1, help="Images a forward pass; gradients add up to a batch")
    ] = 12,
    augmentation: Annotated[
        str, typer.Option("--augment", help='"none", "light", "full"')
    ] = "light",
    drop_path: Annotated[float, typer.Option(help="Share of residual branches left out")] = 0.0,
    insight_share: Annotated[float, typer.Option(help="Weight of INSIGHT's own loss")] = 0.4,
    findings: Annotated[
        float,
        typer.Option(help="Weight of the single findings' loss; 0: the binary label alone"),
    ] = 0.0,
    checkpoint_gradients: Annotated[
        bool, typer.Option("--checkpoint-gradients", help="Less memory for more time")
    ] = False,
    sweep: Annotated[
        bool,
        typer.Option("--sweep", help="lr 1e-4, 1e-5, 1e-6 by weight decay 0.1, 0.2, 0.3"),
    ] = False,
    sweep_lr: Annotated[
        list[float] | None, typer.Option(help="Other learning rates for --sweep; may be repeated")
    ] = None,
    precision: Annotated[
        str, typer.Option(help='"auto": bf16 where a GPU has it; or "float32"')
    ] = "auto",
    device: Annotated[str, typer.Option(help='"auto", "cpu", "cuda" or "cuda:1"')] = "auto",
    seed: Annotated[int, typer.Option(help="Of heads, order and augmentation")] = 0,
) -> None:
    """Fine-tune encoder and heads on train, choose on val, write a candidate bundle.

    AdamW, warm-up and cosine, averaged weights, clipped gradients. Batch norms keep their
    statistics, so a batch may be cut into chunks and spread over processes. Stopped and started
    again it goes on where it was, to the same result. The candidate has no probabilities before
    `firstread train calibrate`. Several GPUs:
    `torchrun --nproc-per-node 8 --no-python firstread train finetune ...`.
    """
    from firstread.finetuning import run_finetune

    choices: dict[str, object] = {
        "fit": {
            "epochs": epochs,
            "batch_size": batch,
            "chunk_size": chunk,
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            "precision": precision,
            "seed": seed,
        },
        "augmentation": augmentation,
        "drop_path": drop_path,
        "insight_share": insight_share,
        "findings_share": findings,
        "checkpoint_gradients": checkpoint_gradients,
    }
    rates = tuple(sweep_lr or ()) if sweep else None
    run_finetune(manifest, bundle, out, choices, device=device, sweep_rates=rates)
