"""Write a CT volume that came as NIfTI as a DICOM series, so that training reads what serving does.

nibabel reads NIfTI; it is among the development dependencies, since nothing else here needs it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from common.errors import ConfigurationError, TrainingDataError

LOWEST_HU, HIGHEST_HU = -1024, 3071  # what 12 bits hold


class Described(NamedTuple):
    """What the DICOM headers say of a volume.

    Attributes:
        heights_mm: of each slice, towards the head.
        age: as DICOM writes it: ``054Y``.
    """

    patient_id: str
    sex: str
    age: str
    heights_mm: tuple[float, ...]


def read_nifti(path: Path) -> tuple[NDArray[np.int16], tuple[float, float]]:
    """Read a volume whose array is (column, row, slice).

    Returns:
        int16 (N, H, W) in HU, and the spacing in mm between rows and between columns.

    Raises:
        ConfigurationError: nibabel is not installed.
        TrainingDataError: no three-dimensional volume of whole HU.
    """
    try:
        from nibabel.filebasedimages import ImageFileError
        from nibabel.loadsave import load
    except ImportError as error:
        raise ConfigurationError("NIfTI volumes need nibabel: pip install nibabel") from error
    try:
        image = load(path)
        values = np.asanyarray(image.dataobj)  # pyright: ignore[reportAttributeAccessIssue]
        across, down = (float(side) for side in image.header.get_zooms()[:2])  # pyright: ignore
    except (OSError, ValueError, ImageFileError) as error:
        raise TrainingDataError(f"{path} cannot be read as NIfTI: {error}") from error
    if values.ndim != 3 or values.dtype.kind not in "iu":
        raise TrainingDataError(f"{path}: {values.ndim} dimensions of {values.dtype}, not 3 of HU")
    return values.transpose(2, 1, 0).astype(np.int16), (down, across)


def write_series(
    volume: NDArray[np.int16],
    spacing_mm: tuple[float, float],
    described: Described,
    folder: Path,
) -> Sequence[Path]:
    """Write (N, H, W) in HU as one file a slice; the same volume gets the same UIDs again."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [described.patient_id, str(described.heights_mm), str(volume.shape)]
    series = generate_uid(entropy_srcs=["series", *names])
    study = generate_uid(entropy_srcs=["study", *names])
    frame = generate_uid(entropy_srcs=["frame", *names])
    paths = []
    for number, height_mm in enumerate(described.heights_mm):
        dataset = _slice(volume[number], spacing_mm)
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=["instance", str(number), *names])
        dataset.SeriesInstanceUID, dataset.StudyInstanceUID = series, study
        dataset.FrameOfReferenceUID = frame
        dataset.PatientID, dataset.PatientSex = described.patient_id, described.sex
        dataset.PatientAge = described.age
        dataset.InstanceNumber = number + 1
        dataset.ImagePositionPatient = [0, 0, height_mm]
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        paths.append(folder / f"{number:04d}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def _slice(hounsfield: NDArray[np.int16], spacing_mm: tuple[float, float]) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.Modality = CTImageStorage, "CT"
    dataset.ImageType = ["DERIVED", "PRIMARY", "AXIAL"]
    dataset.BodyPartExamined = "CHEST"
    dataset.Rows, dataset.Columns = hounsfield.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = "1", "-1024", "HU"
    dataset.PixelSpacing = [f"{side:.10g}" for side in spacing_mm]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    stored = np.clip(hounsfield, LOWEST_HU, HIGHEST_HU).astype(np.int32) - LOWEST_HU
    dataset.PixelData = stored.astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset
