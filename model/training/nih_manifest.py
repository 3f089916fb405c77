"""A manifest of ChestX-ray14 as the NIH hands it out.

Source: Wang et al. 2017, ChestX-ray8, arXiv:1705.02315; the table ``Data_Entry_2017.csv``, the
official patient-wise ``train_val_list.txt`` and ``test_list.txt``, and the folders of images.
"""

import csv
import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from common.errors import TrainingDataError
from model.training.manifests import ManifestRow

TABLES = ("Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv")
TRAIN_VAL_LIST, TEST_LIST = "train_val_list.txt", "test_list.txt"
IMAGE_FOLDERS = ("images", "images_*/images", "images_*")
NO_FINDING = "No Finding"
ADULT_YEARS = 18
OLDEST_YEARS = 120  # the table of 2017 holds ages such as 414
COLUMNS = {
    "imageindex": "file",
    "findinglabels": "findings",
    "followup": "follow_up",
    "patientid": "patient",
    "patientage": "age",
    "patientgender": "sex",
    "patientsex": "sex",
    "viewposition": "view",
}
"""Our name for each column, by the letters of its header; the versions differ in the rest."""


@dataclass(frozen=True)
class NihManifest:
    """The rows, and how many images each rule left out or moved; ``missing`` are file names."""

    rows: list[ManifestRow]
    counts: dict[str, int]
    missing: list[str]


def nih_manifest(
    folder: Path, *, adults_only: bool = True, val_share: float = 0.125, seed: int = 0
) -> NihManifest:
    """Read the folder of ChestX-ray14; images whose file is missing are left out and named.

    Args:
        folder: Holds the table, both lists and the images.
        adults_only: Leave out who is under 18 years or of unknown or impossible age.
        val_share: Share of the patients of ``train_val_list.txt`` that become ``val``.
        seed: Chooses these patients. They depend on it and on the lists alone, so that missing
            files or an age filter move no patient from one split to another.

    Raises:
        TrainingDataError: a file is missing or a value cannot be understood.
    """
    entries = _read_table(_table(folder))
    train_val, test = _read_list(folder / TRAIN_VAL_LIST), _read_list(folder / TEST_LIST)
    val = _val_patients({_patient_of(name) for name in train_val}, val_share, seed)
    found = _find_images(folder)
    rows: list[ManifestRow] = []
    missing: list[str] = []
    counts: Counter[str] = Counter()
    for entry in entries:
        counts["in the table"] += 1
        name, years = entry["file"], _years(entry["age"])
        if adults_only and years is None:
            counts["left out: age unknown or impossible"] += 1
        elif adults_only and years is not None and years < ADULT_YEARS:
            counts["left out: under 18 years"] += 1
        elif name not in found:
            missing.append(name)
        else:
            split = _split(name, train_val, test, val)
            counts[f"split {split or 'none: in neither list'}"] += 1
            rows.append(_row(found[name], entry, years, split))
    counts["missing files"] = len(missing)
    return NihManifest(rows, dict(counts), missing)


def _row(path: Path, entry: dict[str, str], years: float | None, split: str) -> ManifestRow:
    return ManifestRow(
        path=path,
        label=entry["findings"] != NO_FINDING,
        group=f"nih_{int(entry['patient']):08d}",
        split=split,
        columns={
            "dataset": "nih_cxr14",
            "findings": entry["findings"],
            "sex": entry["sex"].strip(),
            "age": "" if years is None else f"{years:g}",
            "view": entry["view"].strip(),
            "follow_up": entry.get("follow_up", ""),
        },
    )


def _split(name: str, train_val: set[str], test: set[str], val: set[str]) -> str:
    if name in test:
        return "test"
    if name in train_val:
        return "val" if _patient_of(name) in val else "train"
    return ""


def _patient_of(name: str) -> str:
    return name.split("_")[0]


def _val_patients(patients: set[str], share: float, seed: int) -> set[str]:
    if not 0 < share < 1:
        raise TrainingDataError(f"a share of {share} for val is not between 0 and 1")

    def drawn(patient: str) -> str:
        return hashlib.sha256(f"{seed} {patient}".encode()).hexdigest()

    return set(sorted(patients, key=drawn)[: round(share * len(patients))])


def _years(age: str) -> float | None:
    """Read ``58``, ``058Y``, ``013M`` or ``010D``; None where nobody can be that old."""
    matched = re.fullmatch(r"\s*(\d+)\s*([YMWD]?)\s*", age.upper())
    if matched is None:
        return None
    per_year = {"": 1, "Y": 1, "M": 12, "W": 52, "D": 365}[matched[2]]
    years = int(matched[1]) / per_year
    return years if years <= OLDEST_YEARS else None


def _table(folder: Path) -> Path:
    for name in TABLES:
        if (folder / name).is_file():
            return folder / name
    raise TrainingDataError(
        f"{folder}: no {TABLES[0]}; name the folder into which ChestX-ray14 was downloaded"
    )


def _read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = [re.sub(r"[^a-z]", "", name.lower()) for name in next(reader, [])]
        ours = {place: COLUMNS[name] for place, name in enumerate(header) if name in COLUMNS}
        if lacking := sorted(set(COLUMNS.values()) - {"follow_up"} - set(ours.values())):
            raise TrainingDataError(f"{path}, line 1: no column for {', '.join(lacking)}")
        entries: list[dict[str, str]] = []
        for values in reader:
            if len(values) <= max(ours):
                raise TrainingDataError(f"{path}, line {reader.line_num}: too few values")
            entry = {name: values[place] for place, name in ours.items()}
            if not entry["patient"].strip().isdigit():
                raise TrainingDataError(
                    f"{path}, line {reader.line_num}, column Patient ID: {entry['patient']!r}"
                )
            entries.append(entry)
    return entries


def _read_list(path: Path) -> set[str]:
    if not path.is_file():
        raise TrainingDataError(f"{path} is missing: the official split is read from it")
    return set(path.read_text().split())


def _find_images(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for pattern in IMAGE_FOLDERS:
        for where in sorted(folder.glob(pattern)):
            for path in where.iterdir():
                if path.suffix.lower() in (".png", ".jpg", ".jpeg"):
                    found.setdefault(path.name, path)
    return found
