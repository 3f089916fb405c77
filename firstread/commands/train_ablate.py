"""``firstread train ablate``: INSIGHT beside what leaves a part of it out, and beside controls."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def ablate(
    boxes: Annotated[
        Path,
        typer.Option(
            help="boxes.csv: image, finding, x, y, w, h, image_width, image_height, split"
        ),
    ],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder of the result")],
    bundle: Annotated[
        str, typer.Option(help="Folder of the bundle whose encoder is frozen, or NAME@VERSION")
    ] = "chest_xray_compact",
    features: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Store made by `firstread train features`"),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Instead of a store: the manifest itself"),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each arm")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Batches that each head is fitted on")] = 600,
    device: Annotated[str, typer.Option(help='Encodes: "auto", "cpu" or "cuda"')] = "auto",
) -> None:
    """Compare INSIGHT with other poolings and settings on frozen features, over several seeds.

    Arms: with and without Otsu, alpha 4, 8, 12 or tied to the cells, lambda 0, 0.01, 0.1, two
    stages, detection alone, 3x3 alone, CAM, LSE, PCAM, ABMIL. Controls: random, mean box,
    untrained, supervised segmenter, and the exact additive map. Fitted on train without patients
    that have boxes, compared on val and on boxes outside test. Started again, it goes on with the
    arm and seed where it was stopped. Writes ablation.json, ablation.md and maps.png.
    """
    from common.errors import ConfigurationError
    from firstread.naming_bundles import named_bundle
    from model.training.ablation import open_ablation, run_ablation
    from model.training.ablation_fit import FitConfig
    from model.training.ablation_report import report_ablation, write_ablation

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)  # noqa: T201 - progress

    if (features is None) == (manifest is None):
        raise ConfigurationError(
            "name either --features STORE (see `firstread train features`) or --manifest CSV "
            "(see `firstread train manifest`)"
        )
    chosen = named_bundle(bundle)
    fit = FitConfig(steps=steps)
    data, config = open_ablation(
        chosen, boxes, out, features=features, manifest=manifest, fit=fit, seeds=seeds,
        device=device, say=say,
    )  # fmt: skip
    runs = run_ablation(data, config, out, say)
    report, control_maps = report_ablation(data, runs, config, say)
    table = write_ablation(report, data, runs, control_maps, chosen.preprocessing, out)
    typer.echo(table.read_text())
