"""Commands that train, calibrate and measure: offline jobs over files, no service needed."""

import typer

from firstread.commands import train_evaluate, train_features, train_manifest

app = typer.Typer(
    help="Train, calibrate and measure models. Offline jobs: start with `manifest`, then "
    "`features`. Each can be stopped and started again, and writes what it was beside its result.",
    no_args_is_help=True,
)
app.add_typer(train_manifest.app, name="manifest")
app.command(
    epilog="Example: firstread train features nih.csv --bundle chest_xray_compact --out features"
)(train_features.features)
app.command(
    epilog="Example: firstread train evaluate svm=runs/svm.csv mlp=runs/mlp.csv --out runs/report"
)(train_evaluate.evaluate)
