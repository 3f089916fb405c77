"""Modality LUT and VOI LUT, each as a function of an array of values."""

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from common.pixels.header import VALUE_ERRORS, items, numbers, text

Values = NDArray[np.float64]


def apply_modality(values: Values, header: Dataset) -> Values:
    """Map stored values by the Modality LUT Sequence, else by slope and intercept.

    Source: PS3.3 C.11.1. A slope of 0, which would leave no image, is taken as absent.
    """
    for item in items(header, "ModalityLUTSequence")[:1]:
        table = _read_table(item, signed=bool(values.min() < 0))
        if table is not None:
            first, entries, _ = table
            return _look_up(values, first, entries)
    slope = (numbers(header, "RescaleSlope") or (1.0,))[0] or 1.0
    intercept = (numbers(header, "RescaleIntercept") or (0.0,))[0]
    return values * slope + intercept


def apply_voi(values: Values, header: Dataset) -> Values | None:
    """Map modality values to [0, 1] by the first VOI LUT, else by the first window.

    Returns:
        None if the header has neither, or only one that breaks its own definition.

    Source: PS3.3 C.11.2.1.1 (LUT), C.11.2.1.2 (window), C.11.2.1.3 (function).
    """
    for item in items(header, "VOILUTSequence")[:1]:
        table = _read_table(item, signed=bool(values.min() < 0))
        if table is not None:
            first, entries, highest = table
            return _look_up(values, first, entries) / highest
    centers, widths = numbers(header, "WindowCenter"), numbers(header, "WindowWidth")
    if not centers or not widths:
        return None
    return _window(values, centers[0], widths[0], text(header, "VOILUTFunction", "LINEAR"))


def stretch(values: Values, of: Values) -> Values:
    """Map the range of ``of`` to [0, 1]; all 0 if it has one value only."""
    low, high = float(of.min()), float(of.max())
    return np.clip((values - low) / ((high - low) or 1.0), 0.0, 1.0)


def _window(values: Values, center: float, width: float, function: str) -> Values | None:
    if function == "SIGMOID" and width > 0:
        # Beyond 60 the exponential says nothing more, and further it overflows.
        return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - center) / width, -60.0, 60.0)))
    if function == "LINEAR_EXACT" and width > 0:
        return np.clip((values - center) / width + 0.5, 0.0, 1.0)
    if function in ("SIGMOID", "LINEAR_EXACT") or width < 1:
        return None
    if width == 1:
        return (values > center - 0.5).astype(np.float64)
    return np.clip((values - (center - 0.5)) / (width - 1.0) + 0.5, 0.0, 1.0)


def _look_up(values: Values, first: float, entries: Values) -> Values:
    """Values before the first entry get the first, after the last the last."""
    index = np.clip(np.rint(values - first), 0, len(entries) - 1).astype(np.intp)
    return entries[index]


def _read_table(item: Dataset, *, signed: bool) -> tuple[float, Values, float] | None:
    """Return the first value mapped, the entries, and the highest entry that their bits allow."""
    descriptor = numbers(item, "LUTDescriptor")
    if len(descriptor) != 3:
        return None
    count, first, bits = (int(one) for one in descriptor)
    count = count % (1 << 16) or 1 << 16  # 0 stands for 65536, which fits no US; SS turns negative
    first %= 1 << 16
    if signed and first >= 1 << 15:
        first -= 1 << 16
    entries = _read_entries(item, count)
    if entries is None or not 1 <= bits <= 16:
        return None
    return float(first), entries, max(float((1 << bits) - 1), float(entries.max()))


def _read_entries(item: Dataset, count: int) -> Values | None:
    try:
        data = item["LUTData"].value
        if isinstance(data, bytes):
            packed = len(data) in (count, count + 1)  # two 8-bit entries to a word
            data = np.frombuffer(data, np.uint8 if packed else "<u2")
        entries = np.atleast_1d(np.asarray(data, dtype=np.float64))
    except VALUE_ERRORS:
        return None
    entries = np.where(entries < 0, entries + (1 << 16), entries)  # SS written, US meant
    return entries[:count] if len(entries) >= count else None
