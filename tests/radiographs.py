"""DICOM radiographs made for a test: one exposure in any encoding, tags as wanted."""

import zlib
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import RLELosslessEncoder
from pydicom.uid import (
    HTJ2K,
    UID,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    generate_uid,
)

DEFLATED_FRAME = UID("1.2.840.10008.1.2.8.1")
ENCAPSULATED_UNCOMPRESSED = UID("1.2.840.10008.1.2.1.98")
NATIVE = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
LOSSLESS = (
    *NATIVE,
    RLELossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
    HTJ2KLossless,
    DEFLATED_FRAME,
    ENCAPSULATED_UNCOMPRESSED,
)
CHEST: dict[str, Any] = {
    "Modality": "CR",
    "BodyPartExamined": "CHEST",
    "ViewPosition": "PA",
    "PatientAge": "054Y",
    "ImageType": ["DERIVED", "PRIMARY"],
}


def make_exposure(bits: int = 12, shape: tuple[int, int] = (150, 120)) -> NDArray[np.uint16]:
    """Return smooth shapes and noise over the whole range of so many bits; (H, W)."""
    rng = np.random.default_rng(7)
    coarse = rng.normal(size=(9, 8)).astype(np.float32)
    smooth = cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)
    noisy = smooth + rng.normal(scale=0.02, size=shape)
    scaled = (noisy - noisy.min()) / np.ptp(noisy) * ((1 << bits) - 1)
    return np.rint(scaled).astype(np.uint16)


def make_radiograph(
    stored: NDArray[Any], bits_stored: int, *, signed: bool = False, **tags: object
) -> Dataset:
    """Return a native CR chest radiograph of an adult holding these values (H, W)."""
    allocated = 8 if bits_stored <= 8 else 16
    dataset = Dataset()
    dataset.SOPClassUID = ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = generate_uid()
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored = allocated, bits_stored
    dataset.HighBit = bits_stored - 1
    dataset.PixelRepresentation = int(signed)
    for keyword, value in {**CHEST, **tags}.items():
        if value is not None:
            setattr(dataset, keyword, value)
    kind = "i" if signed else "u"
    dataset.PixelData = stored.astype(f"<{kind}{allocated // 8}").tobytes()
    if len(dataset.PixelData) % 2:
        dataset.PixelData += b"\0"
    dataset["PixelData"].VR = "OB" if allocated == 8 else "OW"
    return dataset


def write_radiograph(
    dataset: Dataset, path: Path, syntax: UID = ExplicitVRLittleEndian, **encoding: int
) -> Path:
    """Write a native data set as a file in this transfer syntax."""
    written = Dataset(dataset)
    cells = cells_of(dataset)
    if syntax == ExplicitVRBigEndian:
        swapped = cells.byteswap() if cells.itemsize == 2 else cells
        written.PixelData = swapped.tobytes() + b"\0" * (swapped.nbytes % 2)
        written["PixelData"].VR = dataset["PixelData"].VR
    elif syntax not in NATIVE:
        put_compressed(written, encode(cells, dataset, syntax, **encoding))
    written.file_meta = FileMetaDataset()
    # pydicom 3.0 writes no deflated frames: a name that it knows, of equal length, stands in.
    stand_in = ENCAPSULATED_UNCOMPRESSED if syntax == DEFLATED_FRAME else syntax
    written.file_meta.TransferSyntaxUID = stand_in
    written.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    written.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    written.save_as(
        path,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
        enforce_file_format=True,
    )
    if stand_in != syntax:
        path.write_bytes(path.read_bytes().replace(stand_in.encode(), f"{syntax}\0".encode(), 1))
    return path


def put_compressed(dataset: Dataset, codestream: bytes) -> None:
    """Make a codestream the one frame of a data set."""
    dataset.PixelData = encapsulate([codestream])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True


def cells_of(dataset: Dataset) -> NDArray[Any]:
    """Return the cells (H, W) of a native data set as unsigned integers."""
    dtype = np.uint8 if dataset.BitsAllocated == 8 else np.dtype("<u2")
    count = dataset.Rows * dataset.Columns
    cells = np.frombuffer(dataset.PixelData, dtype, count=count)
    return cells.reshape(dataset.Rows, dataset.Columns)


def encode(cells: NDArray[Any], dataset: Dataset, syntax: UID, **encoding: int) -> bytes:
    """Compress cells with an encoder of the transfer syntax."""
    bits = int(dataset.BitsStored)
    cells = cells & cells.dtype.type((1 << bits) - 1)  # signed: the bits stored and no more
    if syntax in (JPEGLossless, JPEGLosslessSV1):
        predictor = 1 if syntax == JPEGLosslessSV1 else 4
        return bytes(
            imagecodecs.jpeg_encode(cells, lossless=True, bitspersample=bits, predictor=predictor)
        )
    if syntax in (JPEGBaseline8Bit, JPEGExtended12Bit):
        return bytes(imagecodecs.jpeg_encode(cells, bitspersample=bits, level=98))
    if syntax in (JPEGLSLossless, JPEGLSNearLossless):
        return bytes(imagecodecs.jpegls_encode(cells, level=encoding.get("near", 0)))
    if syntax in (HTJ2K, HTJ2KLossless):
        return bytes(imagecodecs.htj2k_encode(cells))
    if syntax == JPEG2000Lossless:
        return bytes(
            imagecodecs.jpeg2k_encode(
                cells, level=0, codecformat="j2k", reversible=True, bitspersample=bits
            )
        )
    if syntax == RLELossless:
        return RLELosslessEncoder.encode(
            cells,
            rows=dataset.Rows,
            columns=dataset.Columns,
            samples_per_pixel=1,
            number_of_frames=1,
            bits_allocated=dataset.BitsAllocated,
            bits_stored=dataset.BitsAllocated,
            pixel_representation=0,
            photometric_interpretation="MONOCHROME2",
        )
    if syntax == DEFLATED_FRAME:
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return deflater.compress(cells.tobytes()) + deflater.flush()
    return cells.tobytes()
