"""Write generated slides as DICOM whole-slide images, frame by frame.

Only for what this project draws itself: the objects say that they are derived and from where.

Source: PS3.3 A.32.8 (VL Whole Slide Microscopy Image), PS3.5 A.4 (encapsulated pixels).
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage, generate_uid

FRAME_PX = 256


class SlideIdentity(NamedTuple):
    """What the levels of one slide share."""

    study_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str
    container: str


def new_identity(container: str = "GENERATED") -> SlideIdentity:
    """Make the UIDs of a new slide."""
    return SlideIdentity(generate_uid(), generate_uid(), generate_uid(), container)


def write_slide(
    folder: Path,
    pixels: NDArray[np.uint8],
    *,
    mpp_um: float,
    reductions: Sequence[int] = (1, 4),
    frame_px: int = FRAME_PX,
) -> list[Path]:
    """Write RGB pixels (H, W, 3) as one slide, one file for each reduction (powers of two)."""
    folder.mkdir(parents=True, exist_ok=True)
    identity = new_identity(folder.name[:16])
    written = []
    for number, reduction in enumerate(reductions):
        size = [max(1, side // reduction) for side in pixels.shape[:2]]
        level = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA)
        frames = [encode_jpeg(frame) for frame in cut_frames(level.astype(np.uint8), frame_px)]
        path = folder / f"level_{number}.dcm"
        dataset = describe_level(
            identity, (size[0], size[1]), frame_px, mpp_um * reduction, resampled=reduction > 1
        )
        write_level(path, dataset, frames)
        written.append(path)
    return written


def cut_frames(pixels: NDArray[np.uint8], frame_px: int) -> Iterator[NDArray[np.uint8]]:
    """Cut a level into frames (frame_px, frame_px, 3), row by row; white beyond the edge."""
    rows, columns = pixels.shape[:2]
    for top in range(0, rows, frame_px):
        for left in range(0, columns, frame_px):
            part = pixels[top : top + frame_px, left : left + frame_px]
            frame = np.full((frame_px, frame_px, 3), 255, dtype=np.uint8)
            frame[: part.shape[0], : part.shape[1]] = part
            yield frame


def encode_jpeg(frame: NDArray[np.uint8], quality: int = 90) -> bytes:
    """Encode an RGB frame as JPEG baseline, YCbCr without chroma subsampling."""
    file = BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=quality, subsampling=0)
    return file.getvalue()


def describe_level(
    identity: SlideIdentity,
    size_px: tuple[int, int],
    frame_px: int,
    mpp_um: float,
    *,
    resampled: bool = False,
) -> Dataset:
    """Describe one level, all but its pixels: JPEG, tiled full, one optical path."""
    rows, columns = size_px
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.SOPClassUID = VLWholeSlideMicroscopyImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.StudyInstanceUID = identity.study_instance_uid
    dataset.SeriesInstanceUID = identity.series_instance_uid
    dataset.FrameOfReferenceUID = identity.frame_of_reference_uid
    dataset.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED" if resampled else "NONE"]
    dataset.Modality = "SM"
    dataset.Manufacturer = "Firstread, generated"
    dataset.VolumetricProperties = "VOLUME"
    dataset.PositionReferenceIndicator = "SLIDE_CORNER"
    dataset.DimensionOrganizationType = "TILED_FULL"
    dataset.SamplesPerPixel = 3
    dataset.PhotometricInterpretation = "YBR_FULL"
    dataset.PlanarConfiguration = 0
    dataset.NumberOfFrames = -(-rows // frame_px) * -(-columns // frame_px)
    dataset.Rows = dataset.Columns = frame_px
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionMethod = "ISO_10918_1"
    dataset.ContainerIdentifier = identity.container
    dataset.TotalPixelMatrixRows, dataset.TotalPixelMatrixColumns = rows, columns
    dataset.TotalPixelMatrixFocalPlanes = dataset.NumberOfOpticalPaths = 1
    dataset.ImagedVolumeWidth = columns * mpp_um / 1000
    dataset.ImagedVolumeHeight = rows * mpp_um / 1000
    dataset.ImagedVolumeDepth = 0.001
    dataset.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    dataset.FocusMethod, dataset.ExtendedDepthOfField = "AUTO", "NO"
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem = origin.YOffsetInSlideCoordinateSystem = "20"
    dataset.TotalPixelMatrixOriginSequence = [origin]
    light = Dataset()
    light.CodeValue, light.CodingSchemeDesignator = "111744", "DCM"
    light.CodeMeaning = "Brightfield illumination"
    path = Dataset()
    path.OpticalPathIdentifier = "0"
    path.IlluminationTypeCodeSequence = [light]
    dataset.OpticalPathSequence = [path]
    measures = Dataset()
    measures.PixelSpacing = [f"{mpp_um / 1000:.8g}"] * 2
    measures.SliceThickness = "0.001"
    frame_type = Dataset()
    frame_type.FrameType = dataset.ImageType
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    shared.WholeSlideMicroscopyImageFrameTypeSequence = [frame_type]
    dataset.SharedFunctionalGroupsSequence = [shared]
    return dataset


def write_level(path: Path, dataset: Dataset, frames: Iterable[bytes]) -> None:
    """Write a level whose JPEG frames come one after the other; only one is in memory.

    The Basic Offset Table is filled in at the end, so the frames must stay under 4 GiB.
    """
    dcmwrite(path, dataset, enforce_file_format=True)
    count = int(dataset.NumberOfFrames)
    with path.open("r+b") as file:
        file.seek(0, 2)
        file.write(b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff")
        file.write(b"\xfe\xff\x00\xe0" + struct.pack("<I", 4 * count))
        table_at = file.tell()
        file.write(bytes(4 * count))
        offsets, first_at = [], file.tell()
        for frame in frames:
            offsets.append(file.tell() - first_at)
            padded = frame + b"\x00" * (len(frame) % 2)
            file.write(b"\xfe\xff\x00\xe0" + struct.pack("<I", len(padded)) + padded)
        file.write(b"\xfe\xff\xdd\xe0\x00\x00\x00\x00")
        file.seek(table_at)
        file.write(struct.pack(f"<{count}I", *offsets))
