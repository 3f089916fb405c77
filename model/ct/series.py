"""Find the CT series among files, and read one of them as a volume. No torch."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import MalformedInstanceError, OversizedImageError
from common.pixels.header import read_header, text
from model.ct.faults import Fault, refuse
from model.ct.hounsfield import MAX_SLICE_PIXELS, read_hounsfield
from model.ct.slice_headers import read_slices
from model.ct.stacking import Stack, stack_slices

MAX_VOLUME_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class CtSeries:
    """One series whose headers make a volume; its pixels are read slice by slice."""

    series_instance_uid: str
    stack: Stack
    remarks: tuple[str, ...]

    def __len__(self) -> int:
        """Count the slices."""
        return len(self.stack.slices)

    def read_hounsfield(self) -> Iterator[NDArray[np.float32]]:
        """Read the slices from the feet to the head, one (H, W) in HU at a time.

        Raises:
            ImageError: a slice cannot be read.
            OSError: a file cannot be opened.
        """
        for one in self.stack.slices:
            yield read_hounsfield(one.path)


def read_series(paths: Iterable[Path]) -> CtSeries:
    """Read the headers of one series; the order of the files does not matter.

    Raises:
        NotEligibleError: the files make no volume; the message begins with one of ``Fault``.
        OversizedImageError: slices larger than the bound.
        OSError: a file cannot be opened or read.
    """
    found = read_slices(paths)
    if not found.headers and found.remarks:
        raise refuse(Fault.NO_SLICES, "; ".join(found.remarks))
    stack = stack_slices(found.headers)
    first = stack.slices[0]
    if first.rows * first.columns > MAX_SLICE_PIXELS:
        raise OversizedImageError(f"slices of {first.rows} x {first.columns} pixels")
    return CtSeries(first.series_instance_uid, stack, (*found.remarks, *stack.remarks))


def read_volume(series: CtSeries) -> NDArray[np.float32]:
    """Read all slices at once, (N, H, W) in HU; scoring does not need it and reads one by one.

    Raises:
        OversizedImageError: more than ``MAX_VOLUME_BYTES``; found before anything is decoded.
        ImageError: a slice cannot be read.
    """
    first = series.stack.slices[0]
    shape = (len(series), first.rows, first.columns)
    if 4 * int(np.prod(shape)) > MAX_VOLUME_BYTES:
        raise OversizedImageError(f"a volume of {shape[0]} x {shape[1]} x {shape[2]} voxels")
    volume = np.empty(shape, np.float32)
    for number, hounsfield in enumerate(series.read_hounsfield()):
        volume[number] = hounsfield
    return volume


def group_by_series(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """Group DICOM files by Series Instance UID, in the order met; "" holds what has none."""
    groups: dict[str, list[Path]] = {}
    for path in paths:
        try:
            uid = text(read_header(path), "SeriesInstanceUID")
        except MalformedInstanceError:
            uid = ""
        groups.setdefault(uid, []).append(path)
    return groups
