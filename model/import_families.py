"""The public encoders that can be imported: what they are for, and under which terms."""

from typing import Any, Literal, NamedTuple

from model.eligibility import EligibilityRules
from model.encoders.medimageinsight import MedImageInsightSpec
from model.encoders.vit import DinoV2Spec, UniSpec

Family = Literal["medimageinsight", "dinov2", "uni"]

_RESEARCH = "Research. Not for clinical use: no head, no calibration, no operating point."


class ImportFamily(NamedTuple):
    """One public encoder. ``sha256`` are the published files' hashes, where they are known."""

    title: str
    version: str
    pipeline: Literal["chest_xray", "chest_ct", "slide"]
    encoder: MedImageInsightSpec | DinoV2Spec | UniSpec
    size_px: int
    sha256: frozenset[str]
    eligibility: EligibilityRules
    licence: str
    source: str
    intended_use: str = _RESEARCH


FAMILIES: dict[Family, ImportFamily] = {
    "medimageinsight": ImportFamily(
        title="MedImageInsight",
        version="1.0.0",
        pipeline="chest_xray",
        encoder=MedImageInsightSpec(),
        size_px=480,
        sha256=frozenset(("5eeda63bf616a61664bc95b2c09d3b3d7125209e635678bd3f5f324e9bdb1414",)),
        eligibility=EligibilityRules(),
        licence="MIT",
        source="Codella et al. 2024, arXiv:2410.06542. It was pretrained on ChestX-ray14's "
        "training images among others: evaluate on that set's official test patients only.",
    ),
    "dinov2": ImportFamily(
        title="DINOv2 ViT-L/14 with registers",
        version="1.0.0",
        pipeline="chest_ct",
        encoder=DinoV2Spec(),
        size_px=518,
        sha256=frozenset(),
        eligibility=EligibilityRules(modalities=("CT",), frontal_only=False),
        licence="Apache-2.0",
        source="Oquab et al. 2023, arXiv:2304.07193; Darcet et al. 2023, arXiv:2309.16588. "
        "Trained on photographs.",
    ),
    "uni": ImportFamily(
        title="ViT-L/16 in the shape of UNI",
        version="1.0.0",
        pipeline="slide",
        encoder=UniSpec(),
        size_px=224,
        sha256=frozenset(),
        eligibility=EligibilityRules(
            modalities=("SM",), adults_only=False, chest_only=False, frontal_only=False
        ),
        licence="CC-BY-NC-ND-4.0 if these are UNI's weights: read its terms before any use",
        source="Chen et al. 2024, Nature Medicine 30, 850-862.",
    ),
}


def import_card(about: ImportFamily, source: dict[str, Any]) -> str:
    """Write the card of an imported encoder; its first line says what it is not for."""
    published = (
        "These are the published bytes."
        if source["official"]
        else "The hash is not one that this project knows: names and shapes fit, the numbers may "
        "be a fine-tuned export's or another release's."
    )
    return f"""Not for clinical use. This is not a medical device.

# {about.title}

An encoder alone. It was imported, not trained here, and measured nowhere in this project. Complete
it with `firstread train insight` or `firstread train finetune`, then `firstread train calibrate`.

- Source: {about.source}
- File: `{source["file"]}`, SHA-256 `{source["sha256"]}`. {published}
- Licence: {about.licence}.
- Input: {about.size_px} x {about.size_px} pixels, resized in eight bits by Pillow's bicubic filter,
  the aspect ratio not kept, the grey scale not stretched; ImageNet's mean and deviation.
"""
