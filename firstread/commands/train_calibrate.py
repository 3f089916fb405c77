"""``firstread train calibrate``: what a bundle's scores mean, and from where it flags."""

from pathlib import Path
from typing import Annotated

import typer

SENSITIVITIES = ("sensitive=0.90", "default=0.75", "specific=0.50")


def calibrate(
    bundle: Annotated[str, typer.Option(help="Folder, NAME or NAME@VERSION")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder of the calibrated bundle")],
    features: Annotated[
        Path | None, typer.Option(file_okay=False, help="Store that this bundle encoded")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Or a table with its scores")
    ] = None,
    on: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=VALUE", help="Only these rows of val; may be repeated"),
    ] = None,
    sensitivity: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SHARE",
            help=f"An operating point and what it is to find; default: {', '.join(SENSITIVITIES)}",
        ),
    ] = None,
    by_lower_bound: Annotated[
        bool,
        typer.Option(
            help="Let the one-sided 95 % lower bound reach that share, not the share seen"
        ),
    ] = False,
    default: Annotated[str, typer.Option(help="Operating point that flags")] = "default",
    abstain: Annotated[
        float | None,
        typer.Option(
            metavar="ALPHA",
            min=0.001,
            max=0.5,
            help="Give no opinion where neither or both classes can be excluded at this level",
        ),
    ] = None,
    version: Annotated[str | None, typer.Option(help="Of the new bundle; default: one up")] = None,
    seed: Annotated[int, typer.Option(help="Of the folds")] = 0,
) -> None:
    """Calibrate a bundle on val and write it as a new version with the same weights.

    Temperature, Platt, beta and isotonic compete by log loss over patients that the fit has not
    seen. Prints calibration before and after; test is not looked at.
    """
    from common.errors import BundleError, ConfigurationError
    from firstread.column_values import column_values, only, read_scores
    from firstread.naming_bundles import named_bundle
    from model.training.bundle_versions import next_version
    from model.training.calibrating import (
        CalibrationConfig,
        calibration_table,
        write_calibrated,
    )
    from model.training.calibrating import (
        calibrate as run,
    )

    given = named_bundle(bundle)
    table = read_scores(predictions, features)
    if table.bundle_sha256 != given.sha256:
        raise BundleError(
            f"{predictions or features}: scores of another bundle "
            f"({table.bundle_sha256[:12]}) than {given.folder} ({given.sha256[:12]})"
        )
    wanted: dict[str, float] = {}
    for name, text in column_values("--sensitivity", sensitivity or list(SENSITIVITIES)).items():
        try:
            wanted[name] = float(text)
        except ValueError:
            wanted[name] = 0.0
        if not 0 < wanted[name] < 1:
            raise ConfigurationError(f"--sensitivity {name}={text}: a number within 0 and 1")
    if default not in wanted:
        raise ConfigurationError(f"--default {default}: no such operating point; name it too")
    values = column_values("--on", on)
    config = CalibrationConfig(
        sensitivities=wanted,
        by_lower_bound=by_lower_bound,
        default=default,
        abstain_alpha=abstain,
        seed=seed,
    )
    of_val = only(table, "val", values)
    fitted_on = " ".join(["val", *(f"{name}={value}" for name, value in values.items())])
    report = run(given, of_val, config, fitted_on)
    written = write_calibrated(given, of_val, report, out, version or next_version(given))
    typer.echo("\n".join(calibration_table([report.before, report.after])))
    losses = ", ".join(f"{name} {loss:.4f}" for name, loss in report.calibrator.losses.items())
    typer.echo(f"log loss: {losses}; chosen: {report.calibrator.method}")
    for point in report.operating_points:
        seen, passed = point.sensitivity, point.specificity
        typer.echo(
            f"{point.name}: from {point.threshold:.3f}, sensitivity {seen.value:.3f} "
            f"(at least {seen.lower_bound:.3f}, n {seen.n}), specificity {passed.value:.3f} "
            f"(at least {passed.lower_bound:.3f}, n {passed.n})"
        )
    if report.abstention:
        typer.echo(f"no opinion on {report.abstention.abstained:.1%} of these cases")
    typer.echo(f"written: {written.name} {written.version} in {out}; see `firstread models`")
