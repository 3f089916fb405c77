"""``firstread train transfer``: five classifiers on embeddings that are encoded already."""

from pathlib import Path
from typing import Annotated

import typer


def transfer(
    features: Annotated[Path, typer.Option(file_okay=False, help="Store made by `features`")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder of the results")],
    classifier: Annotated[
        list[str] | None,
        typer.Option(
            help="svm, logistic_regression, knn, random_forest or mlp; may be repeated; all"
        ),
    ] = None,
    train_on: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=VALUE", help="Train on these rows only; may be repeated"),
    ] = None,
    measure_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN=VALUE", help="Measure and calibrate on these only; may be repeated"
        ),
    ] = None,
    look_at_test: Annotated[
        bool, typer.Option("--look-at-test", help="Measure on test too; every look is logged")
    ] = False,
    test_log: Annotated[
        Path, typer.Option(dir_okay=False, help="Where a look at test is logged")
    ] = Path("docs/test_log.csv"),
    seed: Annotated[int, typer.Option(help="Of folds and fits")] = 0,
) -> None:
    """Fit SVM, logistic regression, nearest neighbours, random forest and MLP on embeddings.

    Five-fold cross-validation that parts no patient chooses each one's settings; it is fitted
    again on all of train, calibrated on val, and saved as plain arrays. The predictions are
    tables that `firstread train evaluate` compares.
    """
    from common.errors import ConfigurationError
    from firstread.column_values import column_values
    from model.training.classifier_fitting import GRIDS
    from model.training.feature_store import FeatureStore
    from model.training.test_looking import look_at_tables
    from model.training.transfer import transfer as run

    chosen = tuple(classifier or GRIDS)
    if unknown := [name for name in chosen if name not in GRIDS]:
        raise ConfigurationError(f"no classifier {unknown[0]!r}; there are {', '.join(GRIDS)}")
    results = run(
        FeatureStore.open(features),
        out,
        classifiers=chosen,
        trained_on=column_values("--train-on", train_on),
        measured_on=column_values("--measure-on", measure_on),
        with_test=look_at_test,
        seed=seed,
        say=lambda line: typer.echo(line, err=True),
    )
    typer.echo(f"{'CLASSIFIER':<22}{'CV AUC':<16}{'VAL AUC':<10}CHOSEN")
    for one in results:
        area = f"{one.cv_auc:.3f} sd {one.cv_auc_sd:.3f}"
        chosen_as = ", ".join(f"{name} {value}" for name, value in one.choices.items())
        typer.echo(f"{one.name:<22}{area:<16}{one.val_auc:<10.3f}{chosen_as}")
    if look_at_test:
        paths = [out / f"{one.name}.csv" for one in results]
        for line in look_at_tables(paths, test_log, f"{features.name} test"):
            typer.echo(line)
    typer.echo(f"written: {out}")
