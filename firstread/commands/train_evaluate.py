"""``firstread train evaluate``: measure models, compare them, and write a report that prints."""

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    predictions: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=]PREDICTIONS.csv...",
            help="Tables that `transfer`, `finetune` or `insight` wrote: file, label, group, split,"
            " score, probability and columns to sort by",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder of the report")] = Path(
        "evaluation"
    ),
    bundle: Annotated[
        list[str] | None,
        typer.Option(help="Also predict with this bundle: folder, NAME or NAME@VERSION"),
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option(dir_okay=False, help="The images that --bundle predicts")
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PROBABILITY",
            help="Operating point for the tables; a bundle brings its own",
        ),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(help="Column to sort by; default: dataset, source, sex, age, view"),
    ] = None,
    split: Annotated[str, typer.Option(help='"val", "train", or "none"')] = "val",
    look_at_test: Annotated[
        bool, typer.Option("--look-at-test", help="Measure on test; every look is logged")
    ] = False,
    test_log: Annotated[
        Path, typer.Option(dir_okay=False, help="Where a look at test is logged")
    ] = Path("docs/test_log.csv"),
    complete: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            help="With --look-at-test and one --bundle: write it anew into this folder, with these "
            "figures in it, so that it can be activated",
        ),
    ] = None,
    title: Annotated[str, typer.Option(help="Title of the page")] = "Evaluation",
    device: Annotated[str, typer.Option(help='"auto", "cpu", "cuda" or "cuda:1"')] = "auto",
    seed: Annotated[int, typer.Option(help="Of the bootstrap")] = 0,
) -> None:
    """Measure one or more models on the same images: report.html and report.json.

    AUROC with DeLong's interval and a bootstrap over patients, every two models compared on the
    images that they share, Brier and its parts, calibration, what each operating point does,
    net benefit, and all of it by source, sex, age and view. The page needs no other file.
    """
    from firstread.evaluating import predict_with, read_named, read_split, read_thresholds
    from model.evaluation.test_log import log_test
    from model.training.evaluation_job import evaluate_tables, write_report

    chosen = read_split(split, look_at_test=look_at_test)
    if complete is not None and (chosen != "test" or len(bundle or []) != 1):
        raise typer.BadParameter("--complete needs --look-at-test and one --bundle")
    tables = [read_named(text) for text in predictions or []]
    given = read_thresholds(threshold or [])
    thresholds = {table.name: given for table in tables}
    for name in bundle or []:
        table, own = predict_with(name, manifest, chosen, device)
        tables.append(table)
        thresholds[table.name] = own
    if not tables:
        raise typer.BadParameter("name a table of predictions, or --bundle with --manifest")
    report = evaluate_tables(tables, chosen, thresholds, title=title, columns=by or None, seed=seed)
    page = write_report(report, out)
    if chosen == "test":
        data = f"{manifest.stem if manifest else tables[0].name} test"
        lines = log_test(test_log, report, data)
        typer.echo(f"logged {lines} in {test_log}", err=True)
    for model in report.models:
        area = model.overall.auc
        said = f"AUC {area.value:.4f} ({area.low:.4f} to {area.high:.4f})" if area else "no AUC"
        calibration = model.overall.calibration
        brier = f", Brier {calibration.brier.value:.4f}" if calibration else ""
        typer.echo(f"{model.name}: {said}{brier}")
    for one in report.comparisons:
        typer.echo(
            f"{one.first} - {one.second}: {one.difference.value:+.4f}"
            f" ({one.difference.low:+.4f} to {one.difference.high:+.4f}), p {one.p_value:.4f}"
        )
    typer.echo(page)
    if complete is not None:
        from firstread.evaluating import complete_with

        written = complete_with((bundle or [""])[0], tables[-1], complete, manifest)
        missing = ", ".join(written.missing()) or "nothing"
        typer.echo(f"written: {written.name} {written.version} in {complete}; missing: {missing}")
