"""Decide from tags whether a pipeline was made for an image. No pixels, no torch.

What the tags leave open, a bundle's gate decides from the pixels: see ``gate`` and ``examination``.
"""

import re
from datetime import date
from enum import StrEnum
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict
from pydicom.dataset import Dataset

from common.pixels.header import is_phantom, items, numbers, text, texts

ADULT_AGE_YEARS = 18
# Beyond this an age is a slip of the pen: 414Y stands in public data for 41.4 or 41 years.
OLDEST_AGE_YEARS = 120

FRONTAL_WORDS = frozenset(("PA", "AP", "FRONTAL", "ANTEROPOSTERIOR", "POSTEROANTERIOR"))
# SNOMED CT and, retired, SNOMED-RT: antero-posterior, postero-anterior, frontal (CID 4010).
FRONTAL_VIEW_CODES = frozenset(
    ("399348003", "272479007", "399033003", "R-10206", "R-10214", "R-40888", "R-10202")
)
CHEST_WORDS = frozenset(("CHEST", "THORAX", "LUNG", "LUNGS"))
# Structure of thorax, chest, thoracic cavity, lung; and the SNOMED-RT codes of thorax and lung.
CHEST_PART_CODES = frozenset(
    ("51185008", "816094009", "43799004", "39607008", "T-D3000", "T-28000")
)
# What may stand beside either and changes nothing: how the patient was, and with which device.
POSITION_WORDS = frozenset(
    ("ERECT", "UPRIGHT", "STANDING", "SITTING", "SEMIERECT", "SUPINE", "PORTABLE", "MOBILE", "BED")
)
UNSTATED = frozenset(("UNKNOWN", "UNK", "NONE", "NA", "UNSPECIFIED", "OTHER"))

_FOR_PROCESSING_CLASS = "1.2.840.10008.5.1.4.1.1.1.1.1"
_RADIOGRAPH_CLASSES = ("1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1")
_SECONDARY_CAPTURE_CLASS = "1.2.840.10008.5.1.4.1.1.7"


class Refusal(StrEnum):
    """Why an image is not eligible: these sentences and no others."""

    NOT_A_RADIOGRAPH = "not a radiograph"
    FOR_PROCESSING = "for processing, not for presentation"
    SECONDARY = "secondary image"
    SECONDARY_CAPTURE = "secondary capture"
    SEVERAL_FRAMES = "several frames"
    NOT_GREYSCALE = "not greyscale"
    UNDER_AGE = "under 18 years"
    AGE_UNKNOWN = "age unknown"
    OTHER_VIEW = "non-frontal view"
    OTHER_BODY_PART = "other body part"
    VIEW_UNKNOWN = "view unknown"
    PHANTOM = "simulated image"
    NOT_A_PHANTOM = "not a simulated image"


class Note(StrEnum):
    """What an eligible image does not say about itself: recorded, and refuses nothing."""

    NO_MODALITY = "no modality stated"
    NO_IMAGE_TYPE = "no image type stated"
    NO_VIEW = "no view position stated"
    NO_BODY_PART = "no body part stated"
    NO_AGE = "no age stated"
    NO_TAGS = "no tags to check"


class EligibilityRules(BaseModel):
    """What a bundle's pipeline was made for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    modalities: tuple[str, ...] = ("CR", "DX", "DR", "RG")
    adults_only: bool = True
    chest_only: bool = True
    frontal_only: bool = True
    phantoms_only: bool = False


class Policy(NamedTuple):
    """What a site may decide: images of unknown age, and secondary captures.

    ``by_pixels`` leaves an unknown age to the bundle's gate, and refuses where there is none.
    """

    unknown_age: Literal["refuse", "accept", "by_pixels"] = "refuse"
    accept_secondary_capture: bool = False


class Judgement(NamedTuple):
    """``reasons`` are refusals if the image is not eligible, otherwise notes."""

    eligible: bool
    reasons: tuple[str, ...]


def judge(
    header: Dataset, rules: EligibilityRules, policy: Policy, *, has_gate: bool = False
) -> Judgement:
    """Judge an image by its tags alone; all that speaks against it is listed, in fixed order.

    Args:
        header: The data set without its pixels.
        rules: What the pipeline was made for.
        policy: What the site decided.
        has_gate: Whether a gate will judge the pixels: then what no tag says refuses nothing.
    """
    found = [
        *_judge_origin(header, rules),
        *_judge_image_type(header, policy),
        *_judge_age(header, rules, policy, has_gate=has_gate),
        *_judge_view_and_part(header, rules, has_gate=has_gate),
    ]
    refusals = tuple(str(reason) for reason in found if isinstance(reason, Refusal))
    if refusals:
        return Judgement(False, refusals)
    return Judgement(True, tuple(str(reason) for reason in found))


def read_age_years(header: Dataset) -> float | None:
    """Return the patient's age at the examination; None if it cannot be known.

    Patient's Age counts, else the birth date with the study's date, or the acquisition's.

    Source: PS3.5 table 6.2-1 (AS: nnnD, nnnW, nnnM, nnnY).
    """
    stated = re.fullmatch(r"(\d{1,3})([DWMY]?)", text(header, "PatientAge").upper())
    # Without its unit an age can be months; but below 18 it is a child's in every unit.
    if stated and (stated[2] or int(stated[1]) < ADULT_AGE_YEARS):
        per_year = {"D": 365.25, "W": 52.18, "M": 12.0}.get(stated[2], 1.0)
        age = int(stated[1]) / per_year
        return age if age <= OLDEST_AGE_YEARS else None
    born = _read_date(header, "PatientBirthDate")
    dates = (_read_date(header, f"{of}Date") for of in ("Study", "Acquisition", "Series"))
    examined = next((day for day in dates if day), None)
    if not born or not examined:
        return None
    birthday_to_come = (examined.month, examined.day) < (born.month, born.day)
    age = examined.year - born.year - birthday_to_come
    return float(age) if 0 <= age <= OLDEST_AGE_YEARS else None


def _judge_origin(header: Dataset, rules: EligibilityRules) -> list[Refusal | Note]:
    found: list[Refusal | Note] = []
    if is_phantom(header) and not rules.phantoms_only:
        found.append(Refusal.PHANTOM)
    if rules.phantoms_only and not is_phantom(header):
        found.append(Refusal.NOT_A_PHANTOM)
    modality = text(header, "Modality").upper()
    if modality and modality not in rules.modalities:
        found.append(Refusal.NOT_A_RADIOGRAPH)
    if not modality and text(header, "SOPClassUID") not in _RADIOGRAPH_CLASSES:
        found.append(Note.NO_MODALITY)
    return found


def _judge_image_type(header: Dataset, policy: Policy) -> list[Refusal | Note]:
    found: list[Refusal | Note] = []
    sop_class = text(header, "SOPClassUID")
    captured = sop_class == _SECONDARY_CAPTURE_CLASS or sop_class.startswith(
        f"{_SECONDARY_CAPTURE_CLASS}."
    )
    intent = text(header, "PresentationIntentType").upper()
    if intent == "FOR PROCESSING" or sop_class == _FOR_PROCESSING_CLASS:
        found.append(Refusal.FOR_PROCESSING)
    image_type = texts(header, "ImageType")
    # A secondary capture is SECONDARY by its definition: a site that takes them takes both.
    accepted_capture = captured and policy.accept_secondary_capture
    if len(image_type) > 1 and image_type[1].upper() == "SECONDARY" and not accepted_capture:
        found.append(Refusal.SECONDARY)
    if captured and not policy.accept_secondary_capture:
        found.append(Refusal.SECONDARY_CAPTURE)
    if len(image_type) < 2:
        found.append(Note.NO_IMAGE_TYPE)
    if (numbers(header, "NumberOfFrames") or (1.0,))[0] > 1:
        found.append(Refusal.SEVERAL_FRAMES)
    photometric = text(header, "PhotometricInterpretation", "MONOCHROME2")
    samples = (numbers(header, "SamplesPerPixel") or (1.0,))[0]
    if samples != 1 or not photometric.startswith("MONOCHROME"):
        found.append(Refusal.NOT_GREYSCALE)
    return found


def _judge_age(
    header: Dataset, rules: EligibilityRules, policy: Policy, *, has_gate: bool
) -> list[Refusal | Note]:
    if not rules.adults_only:
        return []
    age = read_age_years(header)
    if age is None:
        left_open = policy.unknown_age == "accept" or (
            policy.unknown_age == "by_pixels" and has_gate
        )
        return [Note.NO_AGE if left_open else Refusal.AGE_UNKNOWN]
    return [Refusal.UNDER_AGE] if age < ADULT_AGE_YEARS else []


def _judge_view_and_part(
    header: Dataset, rules: EligibilityRules, *, has_gate: bool
) -> list[Refusal | Note]:
    """Refuse what is stated and not known to be frontal chest: obliques, decubitus, ribs too."""
    view = _agrees(header, "ViewPosition", FRONTAL_WORDS, "ViewCodeSequence", FRONTAL_VIEW_CODES)
    part = _agrees(
        header, "BodyPartExamined", CHEST_WORDS, "AnatomicRegionSequence", CHEST_PART_CODES
    )
    found: list[Refusal | Note] = []
    if rules.frontal_only and view is False:
        found.append(Refusal.OTHER_VIEW)
    if rules.chest_only and part is False:
        found.append(Refusal.OTHER_BODY_PART)
    if view is None and part is None and rules.frontal_only and not has_gate:
        return [Refusal.VIEW_UNKNOWN]
    if view is None:
        found.append(Note.NO_VIEW)
    if part is None:
        found.append(Note.NO_BODY_PART)
    return found


def _agrees(
    header: Dataset, keyword: str, wanted: frozenset[str], sequence: str, codes: frozenset[str]
) -> bool | None:
    """Compare what words and codes say with what is wanted: None if neither says anything."""
    words = set(re.findall(r"[A-Z0-9]+", text(header, keyword).upper().replace("-", "")))
    stated = []
    if words - UNSTATED:
        harmless = FRONTAL_WORDS | CHEST_WORDS | POSITION_WORDS
        stated.append(bool(words & wanted) and words <= harmless)
    for item in items(header, sequence):
        code = text(item, "CodeValue") or text(item, "LongCodeValue")
        if code:
            stated.append(code in codes)
    return all(stated) if stated else None


def _read_date(header: Dataset, keyword: str) -> date | None:
    """Read a DA value, also with the dots of ACR-NEMA."""
    digits = re.sub(r"[.\-/]", "", text(header, keyword))
    if not re.fullmatch(r"\d{8}", digits):
        return None
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None
