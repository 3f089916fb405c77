"""The command that deletes what has been read and may go."""

from pathlib import Path
from typing import Annotated

import typer

from common.settings import get_settings


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command(epilog="Example: firstread retain --delete")(retain)


def retain(
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete; without it, only say what would go")
    ] = False,
    confirmed: Annotated[
        Path | None,
        typer.Option(
            help="First note the SOP Instance UIDs of this file, one a line: the site's archive "
            "has committed to them"
        ),
    ] = None,
) -> None:
    """Delete objects that were read, by age and for room, as FIRSTREAD_RETAIN_... say.

    Never what is unread or in work, and never what Firstread has committed to before the site's
    own archive has. Results, readings and the audit trail stay.
    """
    from firstread.retaining import confirm_file, retain_by_rule

    settings = get_settings()
    if confirmed is not None:
        typer.echo(f"{confirm_file(settings, confirmed)} objects newly confirmed by the archive")
        if not (settings.retain_days or settings.retain_free_bytes):
            return
    done = retain_by_rule(settings, delete=delete, say=typer.echo)
    verb = "deleted" if delete else "would be deleted (nothing was: add --delete)"
    size = f"{done.size_bytes / 1e9:.2f} GB"
    typer.echo(f"{done.instances} objects of {done.studies} studies, {size}, {verb}")
    if done.unconfirmed:
        typer.echo(
            f"{done.unconfirmed} objects stay: Firstread committed to them, and the site's archive "
            "has not been heard (--confirmed)"
        )
