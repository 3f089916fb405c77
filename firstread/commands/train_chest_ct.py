"""``firstread train chest-ct``: INSIGHT on a few CT series, each left out in turn."""

from pathlib import Path
from typing import Annotated

import typer


def chest_ct(
    data: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="Folder with volumes.csv")
    ],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder of the run and its bundle")],
    bundle: Annotated[
        str,
        typer.Option(help="The bundle whose encoder sees the slices: an imported DINOv2, say"),
    ] = "chest_xray_compact",
    steps: Annotated[int | None, typer.Option(min=1, help="Bags per head; default: ours")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Heads per patient left out")] = None,
) -> None:
    """Train chest CT on the NIfTI volumes of a folder; for research, it gives no probability.

    volumes.csv: file, patient_id, diagnosis, sex, age. slice_labels.csv: file, slice_location,
    infection. Stopped and started again it goes on where it was. Use the result by
    `firstread triage SERIES --pipeline chest_ct --bundle OUT/bundle --heatmaps FOLDER`.
    """
    from firstread.naming_bundles import named_bundle
    from model.training.chest_ct import train_chest_ct
    from model.training.ct_insight import CtTrainingConfig

    chosen = {"steps": steps, "seeds": seeds}
    config = CtTrainingConfig(**{name: n for name, n in chosen.items() if n is not None})
    written = train_chest_ct(data, out, config, named_bundle(bundle))
    typer.echo(f"{written.folder}: {written.name} {written.version}, research only")
