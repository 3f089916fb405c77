"""The command that triages files without any service."""

from pathlib import Path
from typing import Annotated

import typer

from common.settings import get_settings
from firstread.research_pipelines import ResearchPipelineName

PipelineOption = Annotated[
    ResearchPipelineName | None,
    typer.Option(
        "--pipeline",
        help="A research pipeline: a score and heatmaps, no probability; default: radiographs",
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command(epilog="Example: firstread triage ./images --json --heatmaps ./heatmaps")(triage)


def triage(
    paths: Annotated[
        list[Path], typer.Argument(help="DICOM, PNG or JPEG files, or folders of them")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object per line and per image")
    ] = False,
    heatmaps: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder for the heatmaps")
    ] = None,
    pipeline: PipelineOption = None,
    bundle: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder of the bundle; only with --pipeline"),
    ] = None,
) -> None:
    """Triage images offline, in the order given; no service is needed.

    With --pipeline chest_ct or slide a folder is searched for series or slides, and a bundle of
    that pipeline must be given. Status 1 if a file could not be read; it never stops the rest.
    """
    settings = get_settings()
    if pipeline is not None:
        from firstread.research_triage import research_triage

        status = research_triage(
            pipeline, paths, bundle=bundle, json=as_json, heatmaps=heatmaps, settings=settings
        )
        raise typer.Exit(status)
    from common.errors import ConfigurationError
    from firstread.triage import triage as run
    from model.bundles import SHIPPED, find_bundles

    if bundle is not None:
        raise ConfigurationError("--bundle needs --pipeline: say chest_ct or slide")
    bundles = find_bundles(SHIPPED)
    status = run(paths, bundles=bundles, json=as_json, heatmaps=heatmaps, settings=settings)
    raise typer.Exit(status)
