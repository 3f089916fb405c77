"""What radiographs and CT volumes are turned into, to show the gate what it must take or refuse.

Images are float32 (H, W) in [0, 1]; every random choice comes from the generator passed in.
"""

import gzip
import struct
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
Volume = NDArray[np.float32]

_NIFTI_TYPES = {2: "u1", 4: "<i2", 8: "<i4", 16: "<f4", 256: "i1", 512: "<u2"}


def vary(image: Image, rng: np.random.Generator) -> Image:
    """Expose the same patient otherwise: still a frontal radiograph, also mirrored.

    Tilt up to 10 degrees, size 0.85 to 1.2, aspect and place a little, gamma, blur, noise, a black
    collimator's edge and letters in a corner: all that may come with a frontal radiograph.
    """
    rows, columns = image.shape
    scale = rng.uniform(0.85, 1.2)
    aspect = np.exp(rng.normal(scale=0.08))
    angle = np.deg2rad(np.clip(rng.normal(scale=4), -10, 10))
    flip = rng.choice((-1.0, 1.0))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turn = turn @ np.diag([flip * scale * aspect, scale / aspect])
    middle = np.array([columns / 2, rows / 2])
    shift = rng.uniform(-0.05, 0.05, size=2) * (columns, rows)
    matrix = np.hstack([turn, (middle + shift - turn @ middle)[:, None]])
    border = cv2.BORDER_CONSTANT if rng.uniform() < 0.5 else cv2.BORDER_REPLICATE
    varied = cv2.warpAffine(image, matrix, (columns, rows), borderMode=border)
    varied = np.clip(varied, 0, 1) ** np.exp(rng.normal(scale=0.35))
    if rng.uniform() < 0.3:
        varied = cv2.GaussianBlur(varied, (0, 0), float(rng.uniform(0.5, 2)))
    if rng.uniform() < 0.5:
        varied = varied + rng.normal(scale=rng.uniform(0, 0.05), size=image.shape)
    if rng.uniform() < 0.25:
        _collimate(varied, rng)
    if rng.uniform() < 0.3:
        place = (int(rng.uniform(0, 0.8) * columns), int(rng.choice((0.08, 0.15, 0.97)) * rows))
        letters = np.zeros(image.shape, dtype=np.uint8)
        cv2.putText(letters, str(rng.choice(("L", "R", "AP", "PORTABLE"))), place, 0, 0.7, 255, 2)
        varied = np.maximum(varied, letters.astype(np.float32) / 255)
    return np.clip(varied, 0, 1).astype(np.float32)


def turn(image: Image, rng: np.random.Generator) -> Image:
    """Turn by one, two or three quarters, or upside down."""
    quarters = int(rng.integers(4))
    return np.ascontiguousarray(np.rot90(image, quarters) if quarters else image[::-1])


def invert(image: Image) -> Image:
    """Show bones black, as where the photometric interpretation is wrong."""
    return (1.0 - image).astype(np.float32)


def cut(image: Image, rng: np.random.Generator) -> Image:
    """Keep a sixteenth to a quarter of the field: a shoulder, a few ribs, the heart alone."""
    height, width = np.array(image.shape) * rng.uniform(0.25, 0.5, size=2)
    top = rng.uniform(0, image.shape[0] - height)
    left = rng.uniform(0, image.shape[1] - width)
    return np.ascontiguousarray(image[int(top) : int(top + height), int(left) : int(left + width)])


def spoil(image: Image, rng: np.random.Generator) -> Image:
    """Lose half of the image, or drown it in noise, or shuffle its tiles."""
    rows, columns = image.shape
    kind = rng.integers(3)
    if kind == 0:
        spoilt = image.copy()
        half = np.s_[: rows // 2] if rng.uniform() < 0.5 else np.s_[:, : columns // 2]
        spoilt[half] = rng.choice((0.0, 1.0))
        return np.ascontiguousarray(np.rot90(spoilt, 2) if rng.uniform() < 0.5 else spoilt)
    if kind == 1:
        noise = rng.normal(scale=rng.uniform(0.7, 4), size=image.shape)
        return (0.25 * image + noise).astype(np.float32)
    n = int(rng.integers(2, 5))
    tall, wide = rows // n, columns // n
    tiles = [
        image[r * tall : (r + 1) * tall, c * wide : (c + 1) * wide]
        for r in range(n)
        for c in range(n)
    ]
    order = rng.permutation(n * n)
    while np.array_equal(order, np.arange(n * n)):
        order = rng.permutation(n * n)
    return np.vstack([np.hstack([tiles[k] for k in order[r * n : (r + 1) * n]]) for r in range(n)])


def read_nifti(path: Path) -> Volume:
    """Read a gzipped NIfTI-1 volume in Hounsfield units, (columns, rows, slices) as stored.

    Source: nifti.nimh.nih.gov/nifti-1, nifti1.h (dim, datatype, vox_offset, scl_slope).
    """
    content = gzip.decompress(path.read_bytes())
    dim = struct.unpack_from("<8h", content, 40)
    (datatype,) = struct.unpack_from("<h", content, 70)
    offset, slope, intercept = struct.unpack_from("<3f", content, 108)
    shape = dim[1:4]
    values = np.frombuffer(
        content, _NIFTI_TYPES[datatype], count=int(np.prod(shape)), offset=int(offset)
    )
    return values.reshape(shape, order="F").astype(np.float32) * (slope or 1.0) + intercept


def slice_of(volume: Volume, rng: np.random.Generator) -> Image:
    """Show one transverse, coronal or sagittal slice under a random window."""
    axis = int(rng.choice((0, 1, 2), p=(0.15, 0.15, 0.7)))
    place = int(volume.shape[axis] * rng.uniform(0.1, 0.9))
    image = np.take(volume, place, axis=axis).T
    middle, width = ((-600, 1500), (40, 400), (300, 1500), (0, 2000))[int(rng.integers(4))]
    shown = np.clip((image - middle + width / 2) / width, 0, 1).astype(np.float32)
    if axis != 2:
        shown = shown[::-1]
    if rng.uniform() < 0.3:
        shown = cut(shown, rng) if rng.uniform() < 0.5 else np.rot90(shown, int(rng.integers(4)))
    elif rng.uniform() < 0.4:  # one volume has one table and one field of view: others have others
        margin = int(rng.uniform(0, 0.12) * min(shown.shape))
        shown = shown[margin : shown.shape[0] - margin or None, margin : shown.shape[1] - margin]
    return np.ascontiguousarray(shown[:, :: int(rng.choice((-1, 1)))])


def lateral_of(volume: Volume, rng: np.random.Generator) -> Image:
    """Simulate a lateral radiograph: attenuation summed across the patient, head up.

    The patient stands 65 to 115 degrees from frontal; the table is mostly left out, and the field
    is cut as a collimator would. The volumes end at the apices, so no lateral here shows a neck.
    """
    coarse = (volume[::2, ::2] + volume[1::2, 1::2]) / 2  # fine enough for a glance
    attenuation = np.clip(coarse + 1000, 0, None) / 1000
    angle = float(rng.uniform(-25, 25))
    middle = (volume.shape[1] / 2 - 0.5, volume.shape[0] / 2 - 0.5)
    matrix = cv2.getRotationMatrix2D(middle, angle, 1.0)
    size = (volume.shape[1], volume.shape[0])
    # Four slices at a time: warpAffine takes no more channels.
    turned = [
        cv2.warpAffine(np.ascontiguousarray(attenuation[..., k : k + 4]), matrix, size)
        for k in range(0, volume.shape[2], 4)
    ]
    turned = [part[..., None] if part.ndim == 2 else part for part in turned]
    summed = np.concatenate(turned, axis=2).sum(axis=0)  # (rows, slices)
    image = cv2.resize(summed.T[::-1], (256, 256), interpolation=cv2.INTER_LINEAR)
    body = np.flatnonzero(summed.sum(axis=1) > 0.25 * summed.sum(axis=1).max())
    left, right = (np.array([body[0], body[-1]]) * 256 / volume.shape[1]).astype(int)
    left = max(0, int(left - rng.uniform(-20, 40)))
    right = min(256, int(right + rng.uniform(-20, 40)))
    top, bottom = int(rng.uniform(0, 40)), 256 - int(rng.uniform(0, 60))
    image = image[top:bottom, left:right]
    if rng.uniform() < 0.5:  # film answers to transmitted light, not to its logarithm
        image = 1 - np.exp(-image / image.max() * rng.uniform(1, 3))
    image = (image - image.min()) / np.ptp(image)
    return np.ascontiguousarray(image[:, :: int(rng.choice((-1, 1)))]).astype(np.float32)


def _collimate(image: NDArray[np.floating], rng: np.random.Generator) -> None:
    """Blacken up to a tenth along each edge, in place."""
    rows, columns = image.shape
    top, bottom = (rng.uniform(0, 0.1, size=2) * rows).astype(int)
    left, right = (rng.uniform(0, 0.1, size=2) * columns).astype(int)
    image[:top] = image[rows - bottom :] = 0.0
    image[:, :left] = image[:, columns - right :] = 0.0
