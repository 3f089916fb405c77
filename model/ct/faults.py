"""Why a series makes no volume, and what a person should know of one that does."""

from enum import StrEnum

from common.errors import NotEligibleError


class Fault(StrEnum):
    """Why a series is refused; the sentence that follows in the message gives the figures."""

    NO_SLICES = "no CT slices"
    TOO_FEW = "too few slices"
    TOO_MANY = "too many slices"
    ENHANCED = "enhanced multi-frame CT"
    MIXED_SERIES = "several series"
    MIXED_PATIENTS = "several patients or studies"
    MIXED_FRAMES = "several frames of reference"
    MIXED_SIZES = "several image sizes"
    MIXED_SPACINGS = "several pixel spacings"
    MIXED_ORIENTATIONS = "several orientations"
    SAME_UID = "one instance twice with different content"
    NO_POSITION = "position or orientation missing or impossible"
    NO_SPACING = "pixel spacing missing or impossible"
    NO_RESCALE = "no rescale to Hounsfield units"
    NOT_AXIAL = "not axial"
    DUPLICATE = "several slices at one position"
    MISSING = "slices missing"
    IRREGULAR = "slices unevenly spaced"
    OUT_OF_LINE = "slices out of line"


class Remark(StrEnum):
    """What was noticed of a volume that is good enough; what follows gives the figures."""

    LEFT_OUT_OTHER = "left out what is no CT image"
    LEFT_OUT_LOCALISER = "left out localisers"
    LEFT_OUT_SECONDARY = "left out secondary images"
    LEFT_OUT_REPEATED = "left out files that repeat another"
    TILTED = "tilted gantry"
    SHEARED = "sheared stack"
    JITTER = "slice positions not exact"
    SPARSE = "gaps between slices"
    PARTIAL = "slices may be missing at an end"
    SHORT = "not a whole chest"
    RESCALE_VARIES = "rescale varies from slice to slice"
    LOSSY = "lossy compression"
    NO_AIR = "no air in the scan"


def refuse(fault: Fault, figures: str) -> NotEligibleError:
    """Make the error that says why a series is refused."""
    return NotEligibleError(f"{fault}: {figures}")


def remark(kind: Remark, figures: str) -> str:
    """Word a remark as refusals are worded."""
    return f"{kind}: {figures}"
