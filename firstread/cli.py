"""The ``firstread`` command: one typed function a command, over a function that does the work."""

import logging
from typing import Any

import typer
from typer.core import TyperGroup

from common.errors import OperatorError, StorageUnavailableError
from common.logs import configure_logs
from firstread.commands import (
    auditing,
    models,
    operating,
    retaining,
    sending,
    studies,
    train,
    triaging,
)

OPERATOR_STATUS = 2


class Command(TyperGroup):
    """The group of all commands; an operator's mistake is one red line and never a traceback."""

    def invoke(self, ctx: Any) -> object:  # noqa: ANN401 - Typer's own click is private
        """Run the chosen command."""
        configure_logs("firstread", "warning")  # services then choose their own
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # it warns of what we break
        try:
            return super().invoke(ctx)
        except (OperatorError, StorageUnavailableError) as error:
            first, _, rest = str(error).partition("\n")
            typer.secho(f"firstread: {first}", fg=typer.colors.RED, err=True)
            if rest:
                typer.echo(rest, err=True)
            raise typer.Exit(OPERATOR_STATUS) from None


app = typer.Typer(
    cls=Command,
    help="Batch triage of medical images: C-STORE in, a ranked worklist out. Not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # boxes in a log help nobody, and locals may name patients
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (operating, sending, triaging, studies, retaining):
    module.add_to(app)
app.add_typer(auditing.app, name="audit")
app.add_typer(models.app, name="models")
app.add_typer(train.app, name="train")


def main() -> None:
    """Run the command; the console script's entry."""
    app()


if __name__ == "__main__":
    main()
