"""Which pipeline an instance goes to."""

from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameSingleBitSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from common.pixels.header import Header, is_phantom

CHEST_XRAY = "chest_xray"
PHANTOM = "phantom"
NONE = "none"

# Secondary Capture goes there too whatever its modality, so that the pipeline's own eligibility
# rules say why it is refused, or a site's setting accepts it.
_CHEST_XRAY_CLASSES = frozenset(
    {
        ComputedRadiographyImageStorage,
        DigitalXRayImageStorageForPresentation,
        SecondaryCaptureImageStorage,
        MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
        MultiFrameSingleBitSecondaryCaptureImageStorage,
        MultiFrameTrueColorSecondaryCaptureImageStorage,
    }
)


def route(sop_class_uid: str, header: Header) -> str:
    """Choose the pipeline; ``none`` if no pipeline takes the class."""
    if is_phantom(header):
        return PHANTOM
    return CHEST_XRAY if UID(sop_class_uid) in _CHEST_XRAY_CLASSES else NONE


def refusal(sop_class_uid: str) -> str:
    """Say why no pipeline takes the class."""
    return f"no pipeline for {UID(sop_class_uid).name}"
