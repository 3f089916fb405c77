"""``firstread train gate-report``: count what a bundle's gate refuses, and why."""

from pathlib import Path
from typing import Annotated

import typer


def gate_report(
    bundle: Annotated[str, typer.Option(help="Bundle: folder, NAME or NAME@VERSION")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder of the report")],
    dicom: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder of DICOM files with manifest.csv"),
    ] = None,
    cxr: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder with cxr.csv; ct/ beside it gives laterals"),
    ] = None,
    look_at_test: Annotated[
        bool, typer.Option("--look-at-test", help="Take the test radiographs in place of val")
    ] = False,
    test_log: Annotated[
        Path, typer.Option(dir_okay=False, help="Where a look at test is logged")
    ] = Path("docs/test_log.csv"),
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON")] = False,
) -> None:
    """Count what the gate refuses by reason and category, and show where it is wrong.

    A gate looks at an image before the model does, and refuses what is no frontal chest
    radiograph. Each line says how many of how many images were refused, with the exact 95 %
    interval, and for which reasons. The folder gets gate_report.json and, of the pictures that
    were wrongly taken or refused, the sheet wrong.png.
    """
    from firstread.naming_bundles import named_bundle
    from model.training.gate_rates import log_gate_look
    from model.training.gate_report import report_gate

    if dicom is None and cxr is None:
        raise typer.BadParameter("name images: --dicom, --cxr or both")
    data = None if cxr is None else cxr.resolve().parent
    split = "test" if look_at_test else "val"
    report = report_gate(named_bundle(bundle), out, dicom=dicom, data=data, split=split)
    if data is not None and look_at_test:
        log_gate_look(test_log, report.rates, "gate-report", report.bundle, report.sha256)
    if json:
        typer.echo(report.model_dump_json(indent=2))
        return
    for rate in report.rates:
        share = f"{rate.refused:4d} of {rate.n:4d}  {rate.low:.3f} to {rate.high:.3f}"
        typer.echo(f"{rate.name:66s} {share}  {rate.note}")
    if report.look_ms_median is not None and report.look_ms_95 is not None:
        typer.echo(f"a look: {report.look_ms_median:.1f} ms, 95 % within {report.look_ms_95:.1f}")
    typer.echo(out / "gate_report.json")
