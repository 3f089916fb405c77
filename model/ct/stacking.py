"""Put slices in the order of their places, and refuse those that make no volume.

Nothing is resampled: a volume is the slices as they are, and one affine that says where they lie.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.ct.faults import Fault, Remark, refuse, remark
from model.ct.slice_headers import COSINE_TOLERANCE, SliceHeader

MIN_SLICES, MAX_SLICES = 3, 2000
DUPLICATE_MM = 0.01
MISSING_STEPS = 1.5
UNEVEN_STEPS, JITTER_STEPS = 0.2, 0.02
OUT_OF_LINE_PX = 0.5
TILT_DEG, MAX_TILT_DEG = 0.5, 35.0
SPARSE_SHARE = 0.8
FIRST_NUMBER = 3  # one or two localisers often stand before the first slice
WHOLE_CHEST_MM = 150.0


@dataclass(frozen=True, slots=True)
class Stack:
    """Slices that make a volume.

    Attributes:
        slices: from the feet to the head.
        spacing_mm: between neighbouring slices, along their normal.
        to_patient_mm: (4, 4), from (column, row, slice, 1), counted from the centre of the first
            pixel, to DICOM's patient coordinates. A tilted gantry makes it a shear.
        remarks: what a person should know.
    """

    slices: tuple[SliceHeader, ...]
    spacing_mm: float
    to_patient_mm: NDArray[np.float64]
    remarks: tuple[str, ...]


def stack_slices(slices: Sequence[SliceHeader]) -> Stack:
    """Order the slices of one series by their places; the order given does not matter.

    Raises:
        NotEligibleError: they do not make one evenly spaced axial volume; the message says why.

    Source: PS3.3 C.7.6.2.1.1 (position and orientation).
    """
    if not slices:
        raise refuse(Fault.NO_SLICES, "only images of another kind")
    if len(slices) > MAX_SLICES:
        raise refuse(Fault.TOO_MANY, f"{len(slices)}, at most {MAX_SLICES}")
    _require_alike(slices)
    up = _normal_to_the_head(slices[0])
    ordered = tuple(sorted(slices, key=lambda one: (float(one.position_mm @ up), one.path.name)))
    heights = np.array([one.position_mm @ up for one in ordered])  # (N,)
    steps = np.diff(heights)
    repeated = steps < DUPLICATE_MM
    if repeated.any():
        at = heights[:-1][repeated][0]
        raise refuse(
            Fault.DUPLICATE, f"{repeated.sum()} repeated, the first at {at:.1f} mm; several phases?"
        )
    if len(ordered) < MIN_SLICES:
        raise refuse(Fault.TOO_FEW, f"{len(ordered)}, at least {MIN_SLICES}")
    spacing = float(np.median(steps))
    _require_all_there(heights, steps, spacing)
    jitter = _require_even(heights)
    tilt = _require_in_line(ordered, up)
    step = (ordered[-1].position_mm - ordered[0].position_mm) / (len(ordered) - 1)
    remarks = [*jitter, *tilt, *_look_around(ordered, float(step @ up))]
    return Stack(ordered, float(step @ up), _affine(ordered[0], step), tuple(remarks))


def _require_alike(slices: Sequence[SliceHeader]) -> None:
    exact: dict[Fault, Callable[[SliceHeader], object]] = {
        Fault.MIXED_SERIES: lambda one: one.series_instance_uid,
        Fault.MIXED_PATIENTS: lambda one: (one.patient_id, one.study_instance_uid),
        Fault.MIXED_FRAMES: lambda one: one.frame_of_reference_uid,
        Fault.MIXED_SIZES: lambda one: (one.rows, one.columns),
    }
    for fault, value in exact.items():
        found = len({value(one) for one in slices})
        if found > 1:
            raise refuse(fault, f"{found} among {len(slices)} slices")
    spacings = np.array([one.spacing_mm for one in slices])
    if (np.abs(spacings / spacings[0] - 1) > COSINE_TOLERANCE).any():
        low, high = spacings.min(), spacings.max()
        raise refuse(Fault.MIXED_SPACINGS, f"{low:.4g} to {high:.4g} mm")
    orientations = np.array([one.orientation for one in slices])
    turned = np.abs(orientations - orientations[0]).max(axis=1) > COSINE_TOLERANCE
    if turned.any():
        raise refuse(
            Fault.MIXED_ORIENTATIONS, f"{turned.sum()} of {len(slices)} slices turned otherwise"
        )


def _normal_to_the_head(one: SliceHeader) -> NDArray[np.float64]:
    """Give the unit normal with z up; refuse coronal, sagittal and steep oblique slices."""
    normal = one.normal / np.linalg.norm(one.normal)
    angle = _angle_deg(abs(float(normal[2])))
    if angle > MAX_TILT_DEG:
        raise refuse(Fault.NOT_AXIAL, f"turned by {angle:.0f} degrees from the axial plane")
    return normal if normal[2] > 0 else -normal


def _require_all_there(
    heights: NDArray[np.float64], steps: NDArray[np.float64], spacing: float
) -> None:
    wide = steps > MISSING_STEPS * spacing
    if wide.any():
        missing = int(np.rint(steps[wide] / spacing - 1).sum())
        place = int(np.argmax(wide))
        raise refuse(
            Fault.MISSING,
            f"about {missing}, the first between {heights[place]:.1f} and"
            f" {heights[place + 1]:.1f} mm where slices lie {spacing:.4g} mm apart",
        )


def _require_even(heights: NDArray[np.float64]) -> list[str]:
    """Compare with evenly spaced places: rounding of the positions may not add up."""
    even = np.linspace(heights[0], heights[-1], len(heights))
    spacing = even[1] - even[0]
    off = float(np.abs(heights - even).max())
    if off > UNEVEN_STEPS * spacing:
        raise refuse(Fault.IRREGULAR, f"up to {off:.2g} mm off places {spacing:.4g} mm apart")
    if off > JITTER_STEPS * spacing:
        return [remark(Remark.JITTER, f"up to {off:.2g} mm off, slices {spacing:.4g} mm apart")]
    return []


def _require_in_line(ordered: Sequence[SliceHeader], up: NDArray[np.float64]) -> list[str]:
    """Check that the first pixels of all slices lie on one straight line, and how it leans."""
    positions = np.array([one.position_mm for one in ordered])  # (N, 3)
    along = (positions[-1] - positions[0]) / np.linalg.norm(positions[-1] - positions[0])
    from_first = positions - positions[0]
    heights = from_first @ up
    expected = heights[:, None] / (along @ up) * along
    off = float(np.linalg.norm(from_first - expected, axis=1).max())
    if off > OUT_OF_LINE_PX * min(ordered[0].spacing_mm):
        raise refuse(Fault.OUT_OF_LINE, f"up to {off:.2g} mm to the side")
    lean = _angle_deg(float(along @ up))
    if lean > MAX_TILT_DEG:
        raise refuse(Fault.OUT_OF_LINE, f"the stack leans by {lean:.0f} degrees")
    if lean < TILT_DEG:
        return []
    tilted = _angle_deg(float(up[2])) >= TILT_DEG
    kind = Remark.TILTED if tilted else Remark.SHEARED
    return [remark(kind, f"{lean:.1f} degrees; nothing was resampled")]


def _look_around(ordered: Sequence[SliceHeader], spacing: float) -> list[str]:
    """Remark on what does not spoil the geometry."""
    first, count = ordered[0], len(ordered)
    remarks = []
    if first.thickness_mm and 0 < first.thickness_mm < SPARSE_SHARE * spacing:
        figures = f"{first.thickness_mm:.4g} mm thick, every {spacing:.4g} mm"
        remarks.append(remark(Remark.SPARSE, figures))
    numbers = {one.instance_number for one in ordered if one.instance_number is not None}
    if len(numbers) == count:
        low, high = min(numbers), max(numbers)
        if low > FIRST_NUMBER or high - low + 1 > count:
            remarks.append(remark(Remark.PARTIAL, f"{count} slices numbered {low} to {high}"))
    covered = (count - 1) * spacing + (first.thickness_mm or spacing)
    if covered < WHOLE_CHEST_MM:
        remarks.append(remark(Remark.SHORT, f"{covered:.0f} mm from end to end"))
    rescales = len({one.rescale for one in ordered})
    if rescales > 1:
        figures = f"{rescales} of them; each slice by its own"
        remarks.append(remark(Remark.RESCALE_VARIES, figures))
    lossy = sum(one.lossy for one in ordered)
    if lossy:
        remarks.append(remark(Remark.LOSSY, f"{lossy} of {count} slices"))
    return remarks


def _affine(first: SliceHeader, step: NDArray[np.float64]) -> NDArray[np.float64]:
    between_rows, between_columns = first.spacing_mm
    affine = np.eye(4)
    affine[:3, 0] = first.orientation[:3] * between_columns
    affine[:3, 1] = first.orientation[3:] * between_rows
    affine[:3, 2] = step
    affine[:3, 3] = first.position_mm
    return affine


def _angle_deg(cosine: float) -> float:
    return math.degrees(math.acos(min(1.0, max(-1.0, cosine))))
