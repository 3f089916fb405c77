"""The heatmap of a series as a file: the cells, and the way from them to each slice's pixels."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.ct.series import CtSeries
from model.preprocessing import Affine


class HeatmapVolume(NamedTuple):
    """What lies in the file, under these names.

    Attributes:
        heatmap: float16 (N, h, w) in [0, 1], slices from the feet to the head.
        slice_probability: float32 (N,), INSIGHT's own, not calibrated.
        to_pixels: float64 (6,), from the encoder's input to pixels of a slice, see ``Prepared``;
            the same for all slices.
        to_patient_mm: float64 (4, 4), from (column, row, slice, 1) to patient coordinates, see
            ``Stack``.
        size_px: int64 (2,), rows and columns of a slice.
        sop_instance_uid: str (N,).
    """

    heatmap: NDArray[np.float16]
    slice_probability: NDArray[np.float32]
    to_pixels: NDArray[np.float64]
    to_patient_mm: NDArray[np.float64]
    size_px: NDArray[np.int64]
    sop_instance_uid: NDArray[np.str_]


def heatmap_volume(
    series: CtSeries,
    heatmap: NDArray[np.float16],
    slice_probability: NDArray[np.float32],
    affine: Affine,
) -> HeatmapVolume:
    """Put a prediction (N, h, w) and where its series lies together."""
    first = series.stack.slices[0]
    return HeatmapVolume(
        heatmap,
        slice_probability,
        np.array(affine),
        series.stack.to_patient_mm,
        np.array([first.rows, first.columns]),
        np.array([one.sop_instance_uid for one in series.stack.slices]),
    )


def write_heatmap_volume(volume: HeatmapVolume, path: Path) -> None:
    """Write compressed arrays under their names; no pickle."""
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **volume._asdict())


def read_heatmap_volume(path: Path) -> HeatmapVolume:
    """Read what ``write_heatmap_volume`` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return HeatmapVolume(**{name: arrays[name] for name in HeatmapVolume._fields})


def cell_centre_mm(
    volume: HeatmapVolume, number: int, row: int, column: int
) -> NDArray[np.float64]:
    """Give the patient coordinates (3,) of the centre of one cell of one slice."""
    _, rows, columns = volume.heatmap.shape
    x, y = (column + 0.5) / columns, (row + 0.5) / rows
    a, b, c, d, e, f = volume.to_pixels
    # The affine counts pixels from the corner of the first, DICOM from its centre.
    at = np.array([a * x + b * y + c - 0.5, d * x + e * y + f - 0.5, number, 1.0])
    return (volume.to_patient_mm @ at)[:3]
