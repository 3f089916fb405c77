"""A manifest of a folder of mixed public radiographs, described by its ``cxr.csv``."""

import csv
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from common.errors import TrainingDataError
from model.training.cases import box_images, box_patients
from model.training.manifests import ManifestRow

TABLE = "cxr.csv"
KEPT = ("dataset", "findings", "sex", "age", "view", "population", "label_conflict")
NEEDED = ("file", "split", "label", "dataset", "population", "patient_id", "group_id", "findings")


class CxrManifest(NamedTuple):
    """The rows, how many images each rule left out, and the files that are not there."""

    rows: list[ManifestRow]
    counts: dict[str, int]
    missing: list[str]


def cxr_manifest(
    folder: Path,
    *,
    datasets: Collection[str] = (),
    adults_only: bool = True,
    boxes: Path | None = None,
) -> CxrManifest:
    """Read ``cxr.csv``; its splits and groups are kept.

    Args:
        folder: Holds ``cxr.csv`` and the images that it names.
        datasets: Which to keep; none named means all.
        adults_only: Leave out the rows whose population is pediatric.
        boxes: Table of lesion boxes. The patients in it are left out of train, so that
            localisation is measured on images that nothing was fitted to.

    Raises:
        TrainingDataError: the table is missing or cannot be understood.
    """
    path = folder / TABLE
    if not path.is_file():
        raise TrainingDataError(f"{folder}: no {TABLE}")
    patients = box_patients(boxes) if boxes else set()
    images = box_images(boxes) if boxes else set()
    rows: list[ManifestRow] = []
    missing: list[str] = []
    counts: Counter[str] = Counter()
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if lacking := [name for name in NEEDED if name not in (reader.fieldnames or ())]:
            raise TrainingDataError(f"{path}, line 1: no column {', '.join(lacking)}")
        for fields in reader:
            counts["in the table"] += 1
            boxed = Path(fields["file"]).name in images or fields["patient_id"] in patients
            if datasets and fields["dataset"] not in datasets:
                counts["left out: other data set"] += 1
            elif adults_only and fields["population"] == "pediatric":
                counts["left out: under 18 years"] += 1
            elif boxed and fields["split"] == "train":
                counts["left out: train, patient has lesion boxes"] += 1
            elif not (folder / fields["file"]).is_file():
                missing.append(fields["file"])
            else:
                counts[f"split {fields['split'] or 'none'}"] += 1
                rows.append(_row(folder, fields))
    counts["missing files"] = len(missing)
    return CxrManifest(rows, dict(counts), missing)


def _row(folder: Path, fields: dict[str, str]) -> ManifestRow:
    return ManifestRow(
        path=folder / fields["file"],
        label=fields["label"] == "abnormal",
        group=fields["group_id"],
        split=fields["split"],
        columns={name: fields.get(name, "") for name in KEPT},
    )
