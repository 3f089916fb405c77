"""CT series made for a test: a body with two lungs in HU, in any geometry, tags as wanted."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

ROWS, COLUMNS = 24, 20
SPACING_MM = (1.5, 2.0)  # between rows, between columns
STEP_MM = 5.0
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def make_body(number: int, shape: tuple[int, int] = (ROWS, COLUMNS)) -> NDArray[np.int16]:
    """Return a slice (H, W) in HU: air, a body, two lungs, and a mark that names the slice."""
    rows, columns = shape
    y, x = np.mgrid[0:rows, 0:columns]
    hounsfield = np.full(shape, -1000, np.int16)
    hounsfield[
        ((y - rows / 2) / (0.45 * rows)) ** 2 + ((x - columns / 2) / (0.45 * columns)) ** 2 < 1
    ] = 40
    for side in (0.3, 0.7):
        lung = ((y - rows / 2) / (0.25 * rows)) ** 2 + (
            (x - side * columns) / (0.13 * columns)
        ) ** 2
        hounsfield[lung < 1] = -850
    hounsfield[0, 0] = number
    return hounsfield


def make_slices(
    count: int,
    *,
    step_mm: Sequence[float] = (0.0, 0.0, STEP_MM),
    shape: tuple[int, int] = (ROWS, COLUMNS),
    **tags: object,
) -> list[Dataset]:
    """Return a series from the feet to the head; ``tags`` replace those of every slice.

    ``step_mm`` is the way from one first pixel to the next.
    """
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    slices = []
    for number in range(count):
        dataset = Dataset()
        dataset.SOPClassUID = CTImageStorage
        dataset.SOPInstanceUID = generate_uid()
        dataset.SeriesInstanceUID, dataset.StudyInstanceUID = series, study
        dataset.FrameOfReferenceUID = frame
        dataset.PatientID, dataset.PatientAge = "test", "054Y"
        dataset.Modality, dataset.BodyPartExamined = "CT", "CHEST"
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.InstanceNumber = count - number  # from the head to the feet, as scanners do
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
        dataset.PixelRepresentation = 0
        dataset.RescaleSlope, dataset.RescaleIntercept = "1", "-1024"
        dataset.PixelSpacing = list(SPACING_MM)
        dataset.SliceThickness = STEP_MM
        dataset.ImageOrientationPatient = list(AXIAL)
        dataset.ImagePositionPatient = [
            first + number * by for first, by in zip((-20, -18, 100), step_mm, strict=True)
        ]
        put_hounsfield(dataset, make_body(number, shape))
        for keyword, value in tags.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)
        slices.append(dataset)
    return slices


def put_hounsfield(dataset: Dataset, hounsfield: NDArray[Any]) -> None:
    """Store HU (H, W) by the data set's own rescale."""
    stored = (hounsfield - float(dataset.RescaleIntercept)) / float(dataset.RescaleSlope)
    dataset.Rows, dataset.Columns = hounsfield.shape
    dataset.PixelData = np.rint(stored).astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"


def tilted(degrees: float) -> tuple[float, ...]:
    """Return the orientation of slices whose gantry leans by so much about the x axis."""
    angle = math.radians(degrees)
    return (1.0, 0.0, 0.0, 0.0, math.cos(angle), math.sin(angle))


def write_slices(slices: Sequence[Dataset], folder: Path) -> list[Path]:
    """Write a series, one file a slice, and return the files in the order given."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, dataset in enumerate(slices):
        path = folder / f"IM{number:04d}.dcm"
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = UID(dataset.SOPClassUID)
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths
