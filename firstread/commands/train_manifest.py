"""``firstread train manifest``: describe a data set so that every other job can read it."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Write the table of images, labels, patients and splits that the other jobs read: a CSV "
    "with the columns file, label (0 or 1), group (the patient), split (train, val, test) and any "
    "others to stratify by. Write your own, or make one from a data set that is known here.",
    no_args_is_help=True,
)

OutOption = Annotated[Path, typer.Option(dir_okay=False, help="The manifest to write")]
AgesOption = Annotated[
    bool, typer.Option("--all-ages", help="Keep children, and who is of unknown age")
]
MissingOption = Annotated[
    bool, typer.Option("--allow-missing", help="Go on without the images that are not there")
]


@app.command("nih", epilog="Example: firstread train manifest nih ./ChestX-ray14 --out nih.csv")
def nih_command(
    folder: Annotated[Path, typer.Argument(help="Folder of ChestX-ray14 as downloaded")],
    out: OutOption = Path("manifest.csv"),
    all_ages: AgesOption = False,
    allow_missing: MissingOption = False,
    val_share: Annotated[
        float, typer.Option(help="Share of the patients of train_val_list.txt kept for val")
    ] = 0.125,
    seed: Annotated[int, typer.Option(help="Chooses these patients")] = 0,
) -> None:
    """Describe ChestX-ray14: Data_Entry_2017.csv, train_val_list.txt, test_list.txt, images.

    Adults alone unless asked otherwise; abnormal is whatever is not "No Finding"; test is the
    official list, val is cut from train_val_list.txt by patient.
    """
    from firstread.manifest_writing import write_described
    from model.training.nih_manifest import nih_manifest

    made = nih_manifest(folder, adults_only=not all_ages, val_share=val_share, seed=seed)
    choices = {"adults_only": not all_ages, "val_share": val_share, "seed": seed}
    write_described(out, folder, made, choices, allow_missing=allow_missing)


@app.command(
    "cxr", epilog="Example: firstread train manifest cxr ./cxr --dataset nih_cxr14 --out nih.csv"
)
def cxr_command(
    folder: Annotated[Path, typer.Argument(help="Folder with cxr.csv and its images")],
    out: OutOption = Path("manifest.csv"),
    all_ages: AgesOption = False,
    allow_missing: MissingOption = False,
    dataset: Annotated[
        list[str] | None, typer.Option(help="Keep this data set; may be repeated; default: all")
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Leave the patients of this boxes.csv out of train"),
    ] = None,
) -> None:
    """Describe a folder of mixed radiographs by its cxr.csv; splits and groups are kept."""
    from firstread.manifest_writing import write_described
    from model.training.cxr_manifest import cxr_manifest

    made = cxr_manifest(folder, datasets=dataset or (), adults_only=not all_ages, boxes=boxes)
    choices = {"adults_only": not all_ages, "datasets": dataset or [], "boxes": str(boxes or "")}
    write_described(out, folder, made, choices, allow_missing=allow_missing)
