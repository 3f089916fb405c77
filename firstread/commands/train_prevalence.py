"""``firstread train prevalence``: how many images are abnormal here, and what follows from it."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Correct probabilities to the share of abnormal images at a site. `propose` estimates it "
    "from scores without labels; a person decides; `set` writes a bundle that holds it. Whoever "
    "activates that bundle (`firstread models activate`) approves it, and that is audited.",
    no_args_is_help=True,
)

BundleOption = Annotated[str, typer.Option(help="Folder, NAME or NAME@VERSION")]


@app.command(
    "propose", epilog="Example: firstread train prevalence propose --bundle chest_xray_compact"
)
def propose(
    bundle: BundleOption,
    predictions: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Scores of this bundle; default: those in the ledger"),
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="Of the ledger, how far back")] = 30,
    seed: Annotated[int, typer.Option(help="Of the interval")] = 0,
) -> None:
    """Estimate the share of abnormal images, with an interval; nothing is changed.

    Source: Saerens, Latinne and Decaestecker 2002, by expectation maximisation.
    """
    from common.errors import BundleError
    from common.settings import get_settings
    from firstread.column_values import read_own_scores
    from firstread.naming_bundles import named_bundle
    from firstread.prevalence_proposal import UnlabelledScores, describe_proposal, scores_of_ledger

    given = named_bundle(bundle)
    if predictions is None:
        unlabelled = scores_of_ledger(get_settings(), given, days)
    else:
        table = read_own_scores(predictions)
        if table.bundle_sha256 != given.sha256:
            raise BundleError(f"{predictions}: scores of another bundle than {given.folder}")
        unlabelled = UnlabelledScores(table.scores, table.groups)
    for line in describe_proposal(given, unlabelled, seed):
        typer.echo(line)


@app.command(
    "set",
    epilog="Example: firstread train prevalence set --bundle chest_xray_compact --prevalence 0.2 "
    '--source "audit of 500 reports" --out corrected',
)
def set_command(
    bundle: BundleOption,
    prevalence: Annotated[float, typer.Option(help="Share of abnormal images, between 0 and 1")],
    source: Annotated[str, typer.Option(help="How it is known, in words; goes into the card")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder of the corrected bundle")],
    version: Annotated[str | None, typer.Option(help="Of the new bundle; default: one up")] = None,
) -> None:
    """Write a version whose probabilities are corrected, and say so wherever they are shown.

    Flags and abstentions stay as they are: they follow the score.
    """
    from firstread.naming_bundles import named_bundle
    from firstread.prevalence_proposal import corrected_version

    written = corrected_version(named_bundle(bundle), out, prevalence, source, version)
    typer.echo(f"{written.name} {written.version}: {written.remarks[0]}")
    typer.echo(f"written: {out}; `firstread models activate {out}` approves it")
