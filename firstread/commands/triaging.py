"""The command that triages files without any service."""

from pathlib import Path
from typing import Annotated

import typer

from common.settings import get_settings


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command(epilog="Example: firstread triage ./images --json --heatmaps ./heatmaps")(triage)


def triage(
    paths: Annotated[list[Path], typer.Argument(help="DICOM, PNG or JPEG files, or folders")],
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object per line and per image")
    ] = False,
    heatmaps: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder for the heatmaps")
    ] = None,
) -> None:
    """Triage images offline, in the order given; no service is needed.

    Status 1 if a file could not be read; it never stops the rest.
    """
    from firstread.triage import triage as run
    from model.bundles import SHIPPED, find_bundles

    bundles = find_bundles(SHIPPED)
    status = run(paths, bundles=bundles, json=as_json, heatmaps=heatmaps, settings=get_settings())
    raise typer.Exit(status)
