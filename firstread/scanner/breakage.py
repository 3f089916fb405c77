"""Break encoded objects in the ways that senders do, byte by byte where DICOM has no words."""

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID

MALFORMED_MARK = "X"


def shorten_pixels(dataset: Dataset) -> None:
    """Keep a third of the native pixels; rows and columns go on promising all of them."""
    pixels = dataset.PixelData
    dataset.PixelData = pixels[: len(pixels) // 6 * 2]


def garble_pixels(dataset: Dataset, seed: int) -> None:
    """Put noise where the compressed frame should be."""
    noise = np.random.default_rng([seed, 301]).bytes(5000)
    dataset.PixelData = encapsulate([noise])


def cut_stream(dataset: Dataset) -> None:
    """End the compressed frame in its middle, as a broken transfer upstream leaves it."""
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    half = frame[: len(frame) // 4 * 2]
    dataset.PixelData = encapsulate([half])


def malform_uid(encoded: bytes, uid: UID) -> tuple[bytes, str]:
    """Replace a UID in an encoded file, wherever it stands, by one of its length that is none."""
    broken = f"{uid[:-1]}{MALFORMED_MARK}"
    return encoded.replace(uid.encode(), broken.encode()), broken
