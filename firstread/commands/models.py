"""Commands about model versions."""

from typing import Annotated

import typer

from common.settings import get_settings
from firstread.commands import models_import

app = typer.Typer(
    help="List, show and activate model versions; import a public encoder.", no_args_is_help=True
)

ReferenceArgument = Annotated[
    str, typer.Argument(help="NAME, NAME@VERSION, the start of a bundle's hash, or its folder")
]


@app.command("list", epilog="Example: firstread models list")
def list_command() -> None:
    """Print the registered versions and which of them are live."""
    from rich.console import Console
    from rich.table import Table

    from firstread.model_versions import registered

    table = Table("Pipeline", "Name", "Version", "State", "Threshold", "Bundle", "Since (UTC)")
    for row in registered(get_settings()):
        table.add_row(
            row.pipeline,
            row.name,
            row.version,
            row.state,
            "incomplete" if row.threshold is None else f"{row.threshold:.3f}",
            row.bundle_sha256[:12],
            f"{row.activated_at:%Y-%m-%d %H:%M}" if row.activated_at else "",
        )
    Console().print(table)


@app.command("show", epilog="Example: firstread models show phantom")
def show_command(reference: ReferenceArgument) -> None:
    """Print a version's card: what it is for, how it was measured, what it lacks."""
    from firstread.model_versions import card

    typer.echo(card(get_settings(), reference))


@app.command("activate", epilog="Example: firstread models activate compact@1")
def activate_command(reference: ReferenceArgument) -> None:
    """Make a version the live one of its pipeline; queued work moves to it at once."""
    from firstread.model_versions import activate

    typer.echo(activate(get_settings(), reference))


models_import.add_to(app)
