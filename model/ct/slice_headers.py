"""What the header of one CT slice says of its place; and which files of a folder are slices."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)

from common.errors import MalformedInstanceError, UnreadablePixelsError
from common.pixels.header import numbers, read_header, text, texts
from model.ct.faults import Fault, Remark, refuse, remark
from model.ct.hounsfield import read_rescale

_ENHANCED = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
# Cosines are written with six digits or so; 0.001 moves the far corner by half a pixel at most.
COSINE_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class SliceHeader:
    """One slice as its header places it.

    Attributes:
        position_mm: (3,), of the centre of the first pixel, x to the left, y back, z up.
        orientation: (6,), the direction cosines of a row and then of a column.
        spacing_mm: between rows, then between columns.
        thickness_mm: nominal; None if it is not stated.
        rescale: slope and intercept to HU.
    """

    path: Path
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    patient_id: str
    frame_of_reference_uid: str
    instance_number: int | None
    rows: int
    columns: int
    position_mm: NDArray[np.float64]
    orientation: NDArray[np.float64]
    spacing_mm: tuple[float, float]
    thickness_mm: float | None
    rescale: tuple[float, float]
    lossy: bool

    @property
    def normal(self) -> NDArray[np.float64]:
        """The unit vector out of the slice: row direction x column direction; (3,)."""
        return np.cross(self.orientation[:3], self.orientation[3:])


@dataclass(frozen=True, slots=True)
class Slices:
    """The slices among some files, in file order, and what was left out."""

    headers: tuple[SliceHeader, ...]
    remarks: tuple[str, ...]


def read_slices(paths: Iterable[Path]) -> Slices:
    """Read the headers of the CT slices among these files.

    Left out, and remarked on: what is no DICOM or no CT image, localisers, secondary images
    (reformats, screenshots, dose pages), and files that repeat another to the byte.

    Raises:
        NotEligibleError: a slice without place, spacing or rescale, enhanced multi-frame CT, or
            one UID with two contents.
        OSError: a file cannot be opened or read.
    """
    left_out: Counter[Remark] = Counter()
    slices: dict[str, SliceHeader] = {}
    for path in paths:
        try:
            header = read_header(path)
        except MalformedInstanceError:
            left_out[Remark.LEFT_OUT_OTHER] += 1
            continue
        reason = _why_left_out(header, path)
        if reason is None:
            read = _read_slice(header, path)
            known = slices.setdefault(read.sop_instance_uid, read)
            if known is not read:
                _require_same_file(known.path, path)
                reason = Remark.LEFT_OUT_REPEATED
        if reason is not None:
            left_out[reason] += 1
    remarks = tuple(remark(kind, str(count)) for kind, count in sorted(left_out.items()))
    return Slices(tuple(slices.values()), remarks)


def _why_left_out(header: Dataset, path: Path) -> Remark | None:
    """Say why a file is no slice; None if it is one.

    Source: PS3.3 C.8.2.1.1.1 (value 3 LOCALIZER), C.7.6.1.1.2 (value 2 SECONDARY).
    """
    sop_class = text(header, "SOPClassUID")
    if sop_class in _ENHANCED:
        raise refuse(Fault.ENHANCED, f"{path.name}: send the series as single slices")
    if sop_class != CTImageStorage:
        return Remark.LEFT_OUT_OTHER
    image_type = [value.upper() for value in texts(header, "ImageType")]
    if "LOCALIZER" in image_type[2:]:
        return Remark.LEFT_OUT_LOCALISER
    if image_type[1:2] == ["SECONDARY"]:
        return Remark.LEFT_OUT_SECONDARY
    return None


def _read_slice(header: Dataset, path: Path) -> SliceHeader:
    position = np.array(numbers(header, "ImagePositionPatient"))
    orientation = np.array(numbers(header, "ImageOrientationPatient"))
    if position.shape != (3,) or orientation.shape != (6,) or not _is_orthonormal(orientation):
        raise refuse(Fault.NO_POSITION, path.name)
    spacing = numbers(header, "PixelSpacing")
    if len(spacing) != 2 or min(spacing) <= 0:
        raise refuse(Fault.NO_SPACING, path.name)
    try:
        rescale = read_rescale(header)
    except UnreadablePixelsError as error:
        raise refuse(Fault.NO_RESCALE, f"{path.name}: {error}") from error
    unit = text(header, "RescaleType", "HU").upper()
    if unit != "HU":
        raise refuse(Fault.NO_RESCALE, f"{path.name}: the unit is {unit[:16]}")
    rows, columns = numbers(header, "Rows"), numbers(header, "Columns")
    if len(rows) != 1 or len(columns) != 1:
        raise refuse(Fault.MIXED_SIZES, f"{path.name} has no size")
    number = numbers(header, "InstanceNumber")
    thickness = numbers(header, "SliceThickness")
    return SliceHeader(
        path=path,
        sop_instance_uid=text(header, "SOPInstanceUID", default=str(path)),
        series_instance_uid=text(header, "SeriesInstanceUID"),
        study_instance_uid=text(header, "StudyInstanceUID"),
        patient_id=text(header, "PatientID"),
        frame_of_reference_uid=text(header, "FrameOfReferenceUID"),
        instance_number=int(number[0]) if number else None,
        rows=int(rows[0]),
        columns=int(columns[0]),
        position_mm=position,
        orientation=orientation,
        spacing_mm=(spacing[0], spacing[1]),
        thickness_mm=thickness[0] if thickness else None,
        rescale=rescale,
        lossy=text(header, "LossyImageCompression") == "01",
    )


def _is_orthonormal(orientation: NDArray[np.float64]) -> bool:
    row, column = orientation[:3], orientation[3:]
    off = (row @ row - 1, column @ column - 1, row @ column)
    return bool(np.abs(off).max() <= 2 * COSINE_TOLERANCE)


def _require_same_file(first: Path, second: Path) -> None:
    with first.open("rb") as one, second.open("rb") as other:
        if file_digest(one, "sha256").digest() != file_digest(other, "sha256").digest():
            raise refuse(Fault.SAME_UID, f"{first.name} and {second.name}")
