"""``firstread train localise``: where a bundle's maps point, on radiographs with lesion boxes."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def localise(
    boxes: Annotated[
        Path,
        typer.Option(
            help="boxes.csv: image, finding, x, y, w, h, image_width, image_height, split"
        ),
    ],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder of the result")],
    bundle: Annotated[
        str, typer.Option(help="Folder of the bundle, or NAME or NAME@VERSION of one that ships")
    ] = "chest_xray_compact",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of the controls that chance enters")] = 3,
    steps: Annotated[
        int, typer.Option(min=1, help="Batches that each fold of the segmenter is fitted on")
    ] = 200,
    test_log: Annotated[
        Path, typer.Option(dir_okay=False, help="Where a look at test is logged")
    ] = Path("docs/test_log.csv"),
    device: Annotated[str, typer.Option(help='Encodes: "auto", "cpu" or "cuda"')] = "auto",
) -> None:
    """Measure where a bundle's INSIGHT and its exact additive map point, beside every control.

    Pointing hits with and without tolerance, IoU and IoBB, pixel AUC; intervals over patients,
    tests against each control, and the smallest difference that so few boxes can show. Writes
    localisation.json, localisation.md and maps.png.
    """
    from firstread.naming_bundles import named_bundle
    from model.training.ablation_fit import FitConfig
    from model.training.localise import TABLE
    from model.training.localise import localise as run

    run(
        named_bundle(bundle),
        boxes,
        out,
        seeds=seeds,
        fit=FitConfig(steps=steps),
        device=device,
        test_log=test_log,
        say=lambda line: print(line, file=sys.stderr, flush=True),  # noqa: T201 - progress
    )
    typer.echo((out / TABLE).read_text())
