"""Which radiographs there are, what is known of each, and which ones may be trained on."""

import csv
import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.pixels.image_files import read_image_file

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)
"""The fourteen findings of the NIH set, as its table spells them."""


@dataclass(frozen=True)
class Case:
    """One radiograph of the table ``cxr.csv``.

    ``findings`` is None where nobody named findings one by one, or where two sources disagree.
    """

    path: Path
    split: str
    dataset: str
    abnormal: bool
    adult: bool
    patient_id: str
    findings: frozenset[str] | None
    sex: str
    view: str
    age: float | None

    @property
    def disputed(self) -> bool:
        """Tell whether text mining said abnormal where radiologists said normal."""
        return self.dataset == "nih_cxr14" and self.findings is None


def read_cases(folder: Path) -> list[Case]:
    """Read ``cxr.csv`` in its own order; ``folder`` holds it and ``images/``."""
    with (folder / "cxr.csv").open(newline="") as file:
        return [_case(folder, row) for row in csv.DictReader(file)]


def _case(folder: Path, row: dict[str, str]) -> Case:
    named = row["dataset"] == "nih_cxr14" and row["label_conflict"] == "0"
    normal_adult = row["dataset"] == "crd_normal"
    findings = frozenset(row["findings"].replace("|", ";").split(";")) & frozenset(FINDINGS)
    return Case(
        path=folder / row["file"],
        split=row["split"],
        dataset=row["dataset"],
        abnormal=row["label"] == "abnormal",
        adult=row["population"] != "pediatric",
        patient_id=row["patient_id"],
        findings=findings if named else frozenset() if normal_adult else None,
        sex=row["sex"],
        view=row["view"],
        age=float(row["age"]) if row["age"].replace(".", "", 1).isdigit() else None,
    )


def box_patients(boxes: Path) -> set[str]:
    """Name the patients whose lesions have boxes: kept out of training, for localisation."""
    with boxes.open(newline="") as file:
        return {row["patient_id"] for row in csv.DictReader(file)} - {""}


def box_images(boxes: Path) -> set[str]:
    """Name the files of ``cxr/images`` that have boxes; a patient id may be missing."""
    with boxes.open(newline="") as file:
        return {Path(row["cxr_file"]).name for row in csv.DictReader(file) if row["cxr_file"]}


def of_dataset(
    cases: list[Case], datasets: Collection[str], splits: Collection[str], *, adult: bool | None
) -> NDArray[np.intp]:
    """Number the cases of these data sets and splits; ``adult`` None takes all ages."""
    return np.flatnonzero(
        [
            case.dataset in datasets
            and case.split in splits
            and (adult is None or case.adult == adult)
            for case in cases
        ]
    )


def fingerprint(cases: list[Case]) -> str:
    """Hash the names, splits and labels of all cases and the bytes of their images, in order."""
    digest = hashlib.sha256()
    for case in cases:
        digest.update(f"{case.path.name} {case.split} {case.dataset} {case.abnormal}\n".encode())
        digest.update(hashlib.sha256(case.path.read_bytes()).digest())
    return digest.hexdigest()


def read_case(case: Case) -> NDArray[np.float32]:
    """Read the image of a case: float32 (H, W) in [0, 1]."""
    return read_image_file(case.path)


def boxed_paths(cases: list[Case], boxes: Path) -> set[Path]:
    """Name the images of patients whose lesions are boxed: localisation is measured on those."""
    patients, images = box_patients(boxes), box_images(boxes)
    return {
        case.path
        for case in cases
        if case.path.name in images or (case.patient_id and case.patient_id in patients)
    }
