"""Commands that train, calibrate and measure: offline jobs over files, no service needed."""

import typer

from firstread.commands import (
    train_ablate,
    train_calibrate,
    train_chest_ct,
    train_evaluate,
    train_features,
    train_finetune,
    train_gate,
    train_insight,
    train_localise,
    train_manifest,
    train_prevalence,
    train_slide,
    train_transfer,
)

app = typer.Typer(
    help="Train, calibrate and measure models. Offline jobs: start with `manifest`, then "
    "`features`. Each can be stopped and started again, and writes what it was beside its result.",
    no_args_is_help=True,
)
app.add_typer(train_manifest.app, name="manifest")
app.add_typer(train_prevalence.app, name="prevalence")
app.command(
    epilog="Example: firstread train features nih.csv --bundle chest_xray_compact --out features"
)(train_features.features)
app.command(
    epilog="Example: firstread train evaluate svm=runs/svm.csv mlp=runs/mlp.csv --out runs/report"
)(train_evaluate.evaluate)
app.command(epilog="Example: firstread train transfer --features features --out runs/transfer")(
    train_transfer.transfer
)
app.command(
    epilog="Example: firstread train ablate --features features --boxes boxes.csv --out ablation"
)(train_ablate.ablate)
app.command(epilog="Example: firstread train localise --boxes boxes.csv --out localisation")(
    train_localise.localise
)
app.command(
    epilog="Example: firstread train finetune nih.csv --bundle chest_xray_compact --out runs/tuned"
)(train_finetune.finetune)
app.command(
    epilog="Example: firstread train gate-report --bundle chest_xray_compact --cxr cxr --out gate"
)(train_gate.gate_report)
app.command(
    epilog="Example: firstread train insight --features features --bundle NAME --out runs/insight"
)(train_insight.insight)
app.command(epilog="Example: firstread train slide slides.csv --bundle ./uni --out runs/slides")(
    train_slide.slide
)
app.command(
    epilog="Example: firstread train calibrate --bundle chest_xray_compact --features features "
    "--out calibrated"
)(train_calibrate.calibrate)
app.command("chest-ct", epilog="Example: firstread train chest-ct --data ct --out runs/chest_ct")(
    train_chest_ct.chest_ct
)
