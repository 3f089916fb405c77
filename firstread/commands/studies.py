"""Commands about studies: the list, the counts, and what a person decides."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from common.settings import get_settings

if TYPE_CHECKING:
    from firstread.ledger import Ledger

AccessionOption = Annotated[str, typer.Option("--accession", help="Accession number")]
StudyOption = Annotated[str, typer.Option("--study", help="Study Instance UID")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON")]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(epilog="Example: firstread worklist --json --limit 20")(worklist)
    app.command(epilog="Example: firstread status --json")(status)
    app.command(epilog="Example: firstread close --accession A1234567")(close)
    app.command(epilog="Example: firstread retry --study 1.2.840.99999.1")(retry)
    app.command(epilog="Example: firstread reprocess --study 1.2.840.99999.1")(reprocess)


def worklist(
    as_json: JsonOption = False,
    limit: Annotated[int, typer.Option(min=1, help="Studies to print, at most")] = 1000,
) -> None:
    """Print the studies to be read, the most urgent first."""
    with _ledger() as ledger:
        rows = ledger.worklist(limit)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("Band", "Due (UTC)", "Accession", "Outcome", "Probability", "State", "Why")
    for row in rows:
        probability = row["probability"]
        table.add_row(
            str(row["band"]),
            row["due_at"][:16].replace("T", " "),
            row["accession_number"],
            row["outcome"].replace("_", " "),
            "" if probability is None else f"{probability:.2f}",
            row["state"],
            row["reason"],
        )
    Console().print(table if rows else "Nothing waits to be read.")


def status(as_json: JsonOption = False) -> None:
    """Print how many studies and analyses stand where, the oldest waiting, and the rates."""
    with _ledger() as ledger:
        counts = ledger.status()
    if as_json:
        typer.echo(json.dumps(counts, indent=2))
        return
    for name, value in counts.items():
        if isinstance(value, dict):
            parts = ", ".join(f"{key.replace('_', ' ')} {count}" for key, count in value.items())
            typer.echo(f"{name.replace('_', ' ')}: {parts}")
        else:
            typer.echo(f"{name.replace('_', ' ')}: {value if value is not None else 'none'}")


def close(accession: AccessionOption = "", study: StudyOption = "") -> None:
    """Take a study off the list because it was reported elsewhere."""
    with _ledger() as ledger:
        for uid in ledger.close(accession=accession, study_instance_uid=study):
            typer.echo(f"closed {uid}")


def retry(
    accession: AccessionOption = "",
    study: StudyOption = "",
    everything: Annotated[bool, typer.Option("--all", help="Every failed analysis")] = False,
) -> None:
    """Queue failed analyses again."""
    with _ledger() as ledger:
        count = ledger.retry(accession=accession, study_instance_uid=study, everything=everything)
    typer.echo(f"{count} analyses queued again")


def reprocess(accession: AccessionOption = "", study: StudyOption = "") -> None:
    """Queue a new run of a study's analyses under today's live model; the old results stay."""
    with _ledger() as ledger:
        count = ledger.reprocess(accession=accession, study_instance_uid=study)
    typer.echo(f"{count} analyses queued")


def _ledger() -> "Ledger":
    from firstread.ledger import Ledger

    return Ledger(get_settings())
