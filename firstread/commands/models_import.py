"""Commands that bring public encoders in, and try one with words alone."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from common.settings import get_settings


class FamilyName(StrEnum):
    """The encoders that can be imported; the same names as ``model.import_families.Family``."""

    MEDIMAGEINSIGHT = "medimageinsight"
    DINOV2 = "dinov2"
    UNI = "uni"


def add_to(app: typer.Typer) -> None:
    """Add these commands to ``firstread models``."""
    app.command(
        "import", epilog="Example: firstread models import medimageinsight ./2024.09.27 --to ./mii"
    )(import_command)
    app.command(
        "zero-shot",
        epilog="Example: firstread models zero-shot ./mii ./images/a.dcm --label 'No Finding' "
        "--label Cardiomegaly",
    )(zero_shot_command)


def import_command(
    family: Annotated[FamilyName, typer.Argument(help="Which encoder the file should hold")],
    path: Annotated[
        Path, typer.Argument(help="The checkpoint, or the folder that it was published in")
    ],
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="Folder of vocab.json and merges.txt; default: found beside the file"),
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="Folder of the new bundle; default: HOME/bundles/NAME")
    ] = None,
    size_px: Annotated[
        int | None,
        typer.Option(min=56, max=2048, help="Side of the input; dinov2: 518, or 224 is 5x faster"),
    ] = None,
) -> None:
    """Check a public encoder's checkpoint and write it as a bundle, which still lacks a head.

    Every name and shape must be the official one. The hash is compared too and reported, but a
    fine-tuned export with other numbers is welcome. Nothing is downloaded.
    """
    from model.importing import import_checkpoint

    folder = to or get_settings().home / "bundles" / family.value
    imported = import_checkpoint(
        family.value,
        path,
        folder,
        tokenizer=tokenizer,
        size_px=size_px,
        say=lambda line: typer.echo(line, err=True),
    )
    known = "the published bytes" if imported.official else "not a hash that this project knows"
    typer.echo(f"{imported.bundle.folder}: {family.value} {imported.bundle.version}")
    typer.echo(f"SHA-256 of the checkpoint: {imported.checkpoint_sha256} ({known})")
    typer.echo(f"missing until it can be activated: {', '.join(imported.bundle.missing())}")
    typer.echo("next: firstread train insight or finetune, then calibrate; see firstread train -h")


def zero_shot_command(
    bundle: Annotated[str, typer.Argument(help="Folder of an imported medimageinsight bundle")],
    paths: Annotated[list[Path], typer.Argument(help="DICOM, PNG or JPEG files")],
    label: Annotated[list[str], typer.Option(help="A condition; name two or more")],
    template: Annotated[
        list[str] | None,
        typer.Option(help="A prompt with {} for the label; several are averaged"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per image")] = False,
) -> None:
    """Compare images with words: softmax of the cosines to each label, without any training.

    Prompts work best as "<modality> <body part> <view> <condition>". The shares depend on the
    prompts and on which labels are asked, and are not calibrated. Status 1 if a file cannot be
    read.
    """
    from firstread.zero_shot_scoring import score_files
    from model.zero_shot import CHEST_TEMPLATES

    if len(label) < 2:
        raise typer.BadParameter("shares compare labels: name at least two", param_hint="--label")
    status = score_files(
        bundle,
        paths,
        label,
        tuple(template or CHEST_TEMPLATES),
        get_settings().device,
        as_json=as_json,
    )
    raise typer.Exit(status)
