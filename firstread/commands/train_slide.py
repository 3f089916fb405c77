"""``firstread train slide``: train INSIGHT on labelled whole-slide images, for research."""

from pathlib import Path
from typing import Annotated

import typer


def slide(
    manifest: Annotated[
        Path,
        typer.Argument(help="CSV of slides; `file` is the folder of a slide, or its one file"),
    ],
    bundle: Annotated[
        str, typer.Option(help="Folder of the bundle whose encoder is used, or NAME@VERSION")
    ],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder of the run")],
    device: Annotated[str, typer.Option(help='"auto", "cpu", "cuda" or "cuda:1"')] = "auto",
    epochs: Annotated[int, typer.Option(min=1, help="Times over all slides")] = 20,
    learning_rate: Annotated[float, typer.Option(min=1e-7, help="Of AdamW")] = 1e-3,
    tiles_per_step: Annotated[
        int, typer.Option(min=1, help="Tiles drawn from a slide at each step")
    ] = 64,
    mpp_um: Annotated[
        float, typer.Option(min=0.1, help="Micrometres a pixel of a tile; 0.5 is 20x")
    ] = 0.5,
    tile_px: Annotated[
        int, typer.Option(min=32, help="Side of a tile; a multiple of the encoder's stride")
    ] = 224,
    test_log: Annotated[
        Path, typer.Option(dir_okay=False, help="Where a look at test is logged")
    ] = Path("docs/test_log.csv"),
    seed: Annotated[int, typer.Option(help="Of weights, order and drawn tiles")] = 0,
) -> None:
    """Train the INSIGHT head on the frozen features of labelled slides, one label a slide.

    Writes a research bundle for `firstread triage --pipeline slide`, result.json (area under the
    curve by split; a look at test is logged) and the record of the run. Stopped and started again
    it goes on after the last finished epoch. The licence of the encoder holds for what is trained
    on its features.
    """
    from firstread.naming_bundles import named_bundle
    from model.execution import choose_device
    from model.training.manifests import read_manifest
    from model.training.slide import SlideTraining, train_slides

    training = SlideTraining(
        seed=seed,
        epochs=epochs,
        learning_rate=learning_rate,
        tiles_per_step=tiles_per_step,
        mpp_um=mpp_um,
        tile_px=tile_px,
    )
    written = train_slides(
        read_manifest(manifest),
        named_bundle(bundle),
        out,
        training,
        device=choose_device(device),
        test_log=test_log,
    )
    typer.echo(f"{written.name} {written.version}: {written.folder}")
