"""Commands about the audit trail: prove that it is whole, write it out."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from common.settings import get_settings

app = typer.Typer(help="Verify and export the audit trail.", no_args_is_help=True)


@app.command(epilog="Example: firstread audit verify --heads syslog.txt")
def verify(
    heads: Annotated[
        list[Path] | None,
        typer.Option(help="Text with recorded heads: a syslog file; default: this stack's log"),
    ] = None,
) -> None:
    """Recompute every chain: find rows changed, removed, inserted, reordered or cut off.

    Status 1 if anything is wrong. A chain's end counts only as far as a head of it was recorded.
    """
    from firstread.audit_trail import verify_trail

    report = verify_trail(get_settings(), heads)
    for problem in report.problems:
        typer.secho(f"PROBLEM {problem}", fg=typer.colors.RED)
    typer.echo(
        f"{report.events} events in {report.chains} chains, {report.heads} recorded heads, "
        f"{report.unsealed} events older than the chains: {len(report.problems)} problems"
    )
    raise typer.Exit(1 if report.problems else 0)


@app.command(epilog="Example: firstread audit export --since 2026-11-01 --out audit.xml.txt")
def export(
    out: Annotated[Path, typer.Option(help="File to write, one message a line")],
    since: Annotated[datetime | None, typer.Option(help="From this instant on (UTC)")] = None,
) -> None:
    """Write the events as DICOM audit messages (PS3.15 section A.5), one XML document a line."""
    from firstread.audit_trail import export_trail

    count = export_trail(get_settings(), out, since)
    typer.echo(f"{count} messages written to {out}")
