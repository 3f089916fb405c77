"""Commands that run Firstread: the stack, each service alone, migrations, the doctor."""

from pathlib import Path
from typing import Annotated

import typer

from common.settings import get_settings


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(epilog="Example: firstread up")(up)
    app.command(epilog="Example: firstread demo --once --count 12 --seed 1")(demo)
    app.command(epilog="Example: FIRSTREAD_DICOM_PORT=11113 firstread listen")(listen)
    app.command(epilog="Example: FIRSTREAD_DEVICE=cuda firstread work")(work)
    app.command(epilog="Example: firstread beat")(beat)
    app.command(epilog="Example: firstread dashboard")(dashboard)
    app.command(epilog="Example: firstread migrate --wait 120")(migrate)
    app.command(epilog="Example: firstread doctor")(doctor)


def up() -> None:
    """Run the whole stack on this machine until Ctrl-C.

    Starts the embedded Postgres and Redis where no address is set, migrates, and keeps the
    listener, the worker, beat and the dashboard running.
    """
    from firstread.foreground import run_stack

    _keep_files_private()
    raise typer.Exit(run_stack(get_settings()))


def demo(
    once: Annotated[
        bool, typer.Option("--once", help="End by itself; status 0 only if all is as expected")
    ] = False,
    source: Annotated[
        list[Path] | None,
        typer.Option("--from", exists=True, help="Send these DICOM, PNG or JPEG files or folders"),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Simulated studies to send")] = 24,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulated patients")] = 1,
) -> None:
    """Run the stack with a simulated scanner and show the studies going through it.

    Uses only phantoms: no image in it is of a person. A new run sends new studies; what earlier
    runs sent is still there.
    """
    from firstread.demo import run_demo

    _keep_files_private()
    raise typer.Exit(
        run_demo(get_settings(), once=once, sources=source or [], count=count, seed=seed)
    )


def listen() -> None:
    """Run the listener alone: receive, make safe, register."""
    _end_when_told()
    _keep_files_private()
    from dicom_listener.service import serve

    serve(get_settings())


def work() -> None:
    """Run one worker alone; as many as wanted may run on one database."""
    _end_when_told()
    _keep_files_private()
    from worker.service import work as run

    raise typer.Exit(run(get_settings()))


def beat() -> None:
    """Run the clock of periodic upkeep; one is enough, two do no harm."""
    _end_when_told()
    _keep_files_private()
    from worker.service import beat as run

    raise typer.Exit(run(get_settings()))


def dashboard() -> None:
    """Run the dashboard alone."""
    import os

    from dashboard.serving import command

    arguments = command(get_settings())
    os.execv(arguments[0], arguments)  # noqa: S606 - no shell is wanted


def migrate(
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the database")] = 60,
) -> None:
    """Bring the database up to date and register the shipped models; services may work meanwhile.

    Makes the services' logins where their passwords are set. Safe to repeat.
    """
    from firstread.migrate import migrate as run

    for sentence in run(get_settings(), wait_s=wait):
        typer.echo(sentence)


def doctor() -> None:
    """Check database, broker, archive, models, ports and clock, and say what to do.

    Status 1 if anything is wrong.
    """
    from firstread.doctor import examine

    problems = 0
    for finding in examine(get_settings()):
        color = typer.colors.GREEN if finding.ok else typer.colors.RED
        word = "OK" if finding.ok else "PROBLEM"
        typer.secho(f"{word:8}", fg=color, nl=False)
        typer.echo(f"{finding.subject}: {finding.says}")
        problems += not finding.ok
    raise typer.Exit(1 if problems else 0)


def _end_when_told() -> None:
    """End with status 0 when told to, until the service heeds the signals in its own way.

    Loading takes seconds; a signal in them would end the process without its clearing up.
    """
    import signal
    import sys

    def end(*_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)  # who is told twice ends at once
        sys.exit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


def _keep_files_private() -> None:
    """Let nobody else read what this process writes, whatever the caller's umask."""
    import os

    os.umask(0o077)
