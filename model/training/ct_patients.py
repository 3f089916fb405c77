"""The CT volumes of a data folder: written as DICOM, read by the serving code, prepared, encoded.

The folder holds ``volumes.csv`` (one row a patient) and ``slice_labels.csv`` (one row a slice).
Letters of shapes: N slices, S pixels along a side, C, h, w the encoder's feature map.
"""

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from common.errors import TrainingDataError
from model.ct.hounsfield import prepare_slice
from model.ct.hounsfield_window import HounsfieldWindow
from model.ct.series import read_series
from model.encoders.encoder import Encoder
from model.preprocessing import PreprocessingSpec
from model.training.nifti_series import Described, read_nifti, write_series

VOLUMES, SLICES = "volumes.csv", "slice_labels.csv"
ENCODED_AT_ONCE = 8


@dataclass(frozen=True)
class CtPatient:
    """One patient with one series, from the feet to the head.

    Attributes:
        infected: bool (N,), what was read from each slice.
        slices: float32 (N, S, S), prepared.
        remarks: what the reader of the series remarked on.
    """

    patient_id: str
    diagnosis: str
    infected: NDArray[np.bool_]
    slices: NDArray[np.float32]
    remarks: tuple[str, ...]


def read_patients(
    data: Path, work: Path, window: HounsfieldWindow, spec: PreprocessingSpec
) -> Iterator[CtPatient]:
    """Write each volume as a DICOM series under ``work`` and read it back, slice by slice.

    Raises:
        TrainingDataError: a table or a volume is missing, or they do not belong together.
    """
    labels = _read_table(data / SLICES, ("file", "slice_location", "infection"))
    for row in _read_table(data / VOLUMES, ("file", "patient_id", "diagnosis", "sex", "age")):
        of_volume = [one for one in labels if one["file"] == row["file"]]
        volume, spacing_mm = read_nifti(data / row["file"])
        if len(of_volume) != len(volume):
            raise TrainingDataError(
                f"{row['file']}: {len(volume)} slices, but {len(of_volume)} in {SLICES}"
            )
        heights = tuple(float(one["slice_location"]) for one in of_volume)
        described = Described(row["patient_id"], row["sex"], row["age"], heights)
        series = read_series(write_series(volume, spacing_mm, described, work / row["patient_id"]))
        infected = np.array([one["infection"] == "1" for one in of_volume])
        prepared = [
            prepare_slice(hounsfield, window, spec).pixels
            for hounsfield in series.read_hounsfield()
        ]
        yield CtPatient(
            row["patient_id"],
            row["diagnosis"],
            infected[np.argsort(heights, kind="stable")],
            np.stack(prepared),
            series.remarks,
        )


def encode_patient(patient: CtPatient, encoder: Encoder, *, mirrored: bool) -> NDArray[np.float32]:
    """Encode the slices, or their mirror images, to feature maps (N, C, h, w)."""
    images = torch.from_numpy(patient.slices)[:, None]
    if mirrored:
        images = images.flip(-1)
    with torch.inference_mode():
        maps = [encoder(piece).spatial for piece in images.split(ENCODED_AT_ONCE)]
    return torch.cat(maps).numpy()


def fingerprint(data: Path) -> str:
    """Hash the tables and every volume that they name."""
    digest = hashlib.sha256()
    files = [row["file"] for row in _read_table(data / VOLUMES, ("file",))]
    for name in (VOLUMES, SLICES, *files):
        digest.update(hashlib.sha256((data / name).read_bytes()).digest())
    return digest.hexdigest()


def _read_table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise TrainingDataError(f"{path} cannot be read: {error.strerror}") from error
    missing = [name for name in columns if not rows or name not in rows[0]]
    if missing:
        raise TrainingDataError(f"{path}: no column {missing[0]}")
    return rows
