"""Commands that send: one's own files, or a simulated scanner's."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.settings import Settings, get_settings

if TYPE_CHECKING:
    from firstread.scanner.send_log import Acknowledgement
    from firstread.scanner.sending import Destination

ToOption = Annotated[
    str, typer.Option("--to", help="AE@host:port; default: this machine's own listener")
]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(epilog="Example: firstread send ./study --to FIRSTREAD@127.0.0.1:11112")(send)
    app.command(epilog="Example: firstread simulate --rate 1 --count 60 --mix stat=1,routine=9")(
        simulate
    )


def send(
    paths: Annotated[
        list[Path], typer.Argument(exists=True, help="DICOM, PNG or JPEG files, or folders")
    ],
    to: ToOption = "",
    calling: Annotated[str, typer.Option(help="The AE title to send under")] = "FIRSTREAD_SCU",
    view: Annotated[str, typer.Option(help="View position of PNG and JPEG files, e.g. PA")] = "",
    body_part: Annotated[str, typer.Option(help="Their body part, e.g. CHEST")] = "",
    age: Annotated[int | None, typer.Option(min=0, max=150, help="Their patient's age")] = None,
) -> None:
    """Send files by C-STORE, DICOM as it lies on disk. Status 1 if any was not taken."""
    from firstread.scanner.own_files import Claims, send_paths

    answers = send_paths(
        paths,
        _destination(to, get_settings()),
        calling_ae_title=calling,
        claims=Claims(view, body_part, age),
        on_answer=_tell,
    )
    stored = sum(answer.stored for answer in answers)
    typer.echo(f"{stored} of {len(answers)} objects taken")
    raise typer.Exit(0 if stored == len(answers) else 1)


def simulate(
    to: ToOption = "",
    rate: Annotated[float, typer.Option(min=0.001, help="Studies a second, at most")] = 1.0,
    count: Annotated[int, typer.Option(min=1, help="Studies to send")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulated patients")] = 1,
    mix: Annotated[
        str, typer.Option(help="Weights of the order priorities")
    ] = "stat=1,urgent=2,routine=7",
    plain: Annotated[
        bool, typer.Option("--plain", help="Only frontal images that can be analysed")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder for expectations and send log")
    ] = None,
) -> None:
    """Be a scanner: send phantoms of nobody, of every priority, some ineligible, some broken."""
    import os
    import uuid
    from datetime import UTC, datetime

    from firstread.scanner.plans import plan_stream
    from firstread.scanner.simulation import Run
    from firstread.scanner.simulation import simulate as run

    os.umask(0o077)  # what is kept of each study is its sender's alone

    settings = get_settings()
    run_id = uuid.uuid4().hex
    folder = out or settings.home / "simulated" / run_id
    weights = _parse_mix(mix)
    run(
        Run(folder, run_id, seed, datetime.now(UTC), keep_files=False),
        plan_stream(seed, count, mix=weights, special_share=0 if plain else 0.15),
        _destination(to, settings),
        studies_per_min=60 * rate,
        on_answer=_tell,
    )
    typer.echo(f"what should become of them: {folder / 'expectations.json'}")


def _destination(to: str, settings: Settings) -> "Destination":
    from firstread.scanner.sending import Destination

    own = f"{settings.ae_title}@{settings.dicom_host}:{settings.dicom_port}"
    return Destination.parse(to or own)


def _parse_mix(mix: str) -> dict:
    from common.errors import ConfigurationError
    from common.states import OrderPriority

    try:
        pairs = (part.split("=") for part in mix.split(","))
        return {OrderPriority(name.strip()): float(weight) for name, weight in pairs}
    except ValueError:
        raise ConfigurationError(f"--mix {mix!r} is not like stat=1,urgent=2,routine=7") from None


def _tell(answer: "Acknowledgement") -> None:
    status = answer.reason if answer.status is None else f"{answer.status:#06x}"
    typer.echo(f"{status}  {answer.path.name}  {answer.sop_instance_uid}")
