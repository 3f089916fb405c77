"""Boxes that radiologists drew around lesions: what localisation is measured on."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from common.errors import TrainingDataError

NEEDED = ("image", "split", "image_width", "image_height", "finding", "x", "y", "w", "h")


class LesionBox(NamedTuple):
    """One box, in parts of the image: left, top, width and height lie in [0, 1]."""

    finding: str
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class BoxedImage:
    """One radiograph with all its boxes; ``split`` is its patient's in the set of radiographs."""

    path: Path
    patient_id: str
    split: str
    boxes: tuple[LesionBox, ...]


class BoxCase(NamedTuple):
    """One box to be found, on the image of this number; ``others`` are that image's other boxes."""

    image: int
    patient_id: str
    box: LesionBox
    others: tuple[LesionBox, ...]


def read_boxed_images(table: Path) -> list[BoxedImage]:
    """Read ``boxes.csv``, the images beside it, in the order in which they come first.

    Raises:
        TrainingDataError: the table or an image is missing, or a line cannot be understood.
    """
    if not table.is_file():
        raise TrainingDataError(f"{table} is missing; name the table of lesion boxes with --boxes")
    found: dict[Path, BoxedImage] = {}
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if lacking := [name for name in NEEDED if name not in (reader.fieldnames or ())]:
            raise TrainingDataError(f"{table}, line 1: no column {', '.join(lacking)}")
        for fields in reader:
            path = table.parent / fields["image"]
            box = _box(table, reader.line_num, fields)
            if path not in found and not path.is_file():
                raise TrainingDataError(f"{table}, line {reader.line_num}: {path} is missing")
            before = found[path].boxes if path in found else ()
            patient = fields.get("patient_id") or path.stem
            found[path] = BoxedImage(path, patient, fields["split"], (*before, box))
    if not found:
        raise TrainingDataError(f"{table} has a header and no boxes")
    return list(found.values())


def box_cases(images: list[BoxedImage]) -> list[BoxCase]:
    """Line up the boxes of all images."""
    return [
        BoxCase(number, image.patient_id, box, image.boxes[:place] + image.boxes[place + 1 :])
        for number, image in enumerate(images)
        for place, box in enumerate(image.boxes)
    ]


def _box(table: Path, line: int, fields: dict[str, str]) -> LesionBox:
    values: dict[str, float] = {}
    for name in ("image_width", "image_height", "x", "y", "w", "h"):
        try:
            values[name] = float(fields[name])
        except ValueError as error:
            raise TrainingDataError(
                f"{table}, line {line}, column {name}: {fields[name]!r} is no number"
            ) from error
    columns, rows = values["image_width"], values["image_height"]
    if min(columns, rows, values["w"], values["h"]) <= 0:
        raise TrainingDataError(f"{table}, line {line}: a box and its image must have an extent")
    return LesionBox(
        fields["finding"],
        values["x"] / columns,
        values["y"] / rows,
        values["w"] / columns,
        values["h"] / rows,
    )
