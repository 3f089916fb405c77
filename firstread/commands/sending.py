"""Commands that send: one's own files, or a simulated scanner's."""

from pathlib import Path
from typing import Annotated

import typer

from common.settings import get_settings

ToOption = Annotated[
    str, typer.Option("--to", help="AE@host:port; default: this machine's own listener")
]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(epilog="Example: firstread send ./study --to FIRSTREAD@127.0.0.1:11112")(send)
    app.command(epilog="Example: firstread simulate --rate 1 --count 60 --seed 7")(simulate)


def send(
    paths: Annotated[list[Path], typer.Argument(exists=True, help="DICOM files or folders")],
    to: ToOption = "",
    calling: Annotated[str, typer.Option(help="Our own AE title")] = "FIRSTREAD_SCU",
) -> None:
    """Send files by C-STORE as they lie on disk. Status 1 if any was not taken."""
    from firstread.commands.sending_report import send_files

    raise typer.Exit(0 if send_files(get_settings(), paths, to, calling) else 1)


def simulate(
    to: ToOption = "",
    rate: Annotated[float, typer.Option(min=0.01, help="Studies a second")] = 1.0,
    count: Annotated[int, typer.Option(min=1, help="Studies to send")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulated patients")] = 1,
) -> None:
    """Be a scanner: send phantoms of nobody, of every priority, some ineligible, some broken."""
    raise NotImplementedError
