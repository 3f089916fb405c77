"""Each rule of eligibility, by its tag."""

from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from model.eligibility import (
    EligibilityRules,
    Judgement,
    Note,
    Policy,
    Refusal,
    judge,
    read_age_years,
)
from tests.radiographs import make_radiograph

RULES = EligibilityRules()
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
MULTI_FRAME_CAPTURE = "1.2.840.10008.5.1.4.1.1.7.2"
DX_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"


def make_header(**tags: Any) -> Dataset:  # noqa: ANN401 - DICOM values
    return make_radiograph(np.zeros((8, 8)), 12, **tags)


def code(value: str) -> list[Dataset]:
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = "SCT"
    return [item]


@pytest.mark.parametrize(
    ("tags", "refusals"),
    [
        ({}, ()),
        ({"Modality": "DX"}, ()),
        ({"Modality": "CT"}, (Refusal.NOT_A_RADIOGRAPH,)),
        ({"Modality": "MG"}, (Refusal.NOT_A_RADIOGRAPH,)),
        ({"PresentationIntentType": "FOR PRESENTATION"}, ()),
        ({"PresentationIntentType": "FOR PROCESSING"}, (Refusal.FOR_PROCESSING,)),
        ({"SOPClassUID": DX_FOR_PROCESSING}, (Refusal.FOR_PROCESSING,)),
        ({"ImageType": ["ORIGINAL", "PRIMARY"]}, ()),
        ({"ImageType": ["DERIVED", "PRIMARY", "", "RT"]}, ()),
        ({"ImageType": ["DERIVED", "SECONDARY"]}, (Refusal.SECONDARY,)),
        ({"SOPClassUID": SECONDARY_CAPTURE}, (Refusal.SECONDARY_CAPTURE,)),
        (
            {"SOPClassUID": MULTI_FRAME_CAPTURE, "NumberOfFrames": 3},
            (Refusal.SECONDARY_CAPTURE, Refusal.SEVERAL_FRAMES),
        ),
        ({"NumberOfFrames": 1}, ()),
        ({"NumberOfFrames": 2}, (Refusal.SEVERAL_FRAMES,)),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, (Refusal.NOT_GREYSCALE,)),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, (Refusal.NOT_GREYSCALE,)),
        ({"PatientAge": "018Y"}, ()),
        ({"PatientAge": "017Y"}, (Refusal.UNDER_AGE,)),
        ({"PatientAge": "215M"}, (Refusal.UNDER_AGE,)),
        ({"PatientAge": "216M"}, ()),
        ({"PatientAge": None}, (Refusal.AGE_UNKNOWN,)),
        ({"ViewPosition": "AP"}, ()),
        ({"ViewPosition": "PA ERECT"}, ()),
        ({"ViewPosition": "Postero-Anterior"}, ()),
        *[
            ({"ViewPosition": view}, (Refusal.OTHER_VIEW,))
            for view in ("LL", "RL", "LAT", "LATERAL", "LLD", "RLD", "LLO", "RAO", "AP LATERAL")
        ],
        ({"ViewCodeSequence": code("399348003")}, ()),
        ({"ViewCodeSequence": code("399173006")}, (Refusal.OTHER_VIEW,)),
        ({"ViewPosition": None, "ViewCodeSequence": code("399067008")}, (Refusal.OTHER_VIEW,)),
        ({"BodyPartExamined": "THORAX"}, ()),
        ({"BodyPartExamined": "LUNG"}, ()),
        ({"BodyPartExamined": "CHEST PA"}, ()),
        *[
            ({"BodyPartExamined": part}, (Refusal.OTHER_BODY_PART,))
            for part in ("HAND", "RIB", "ABDOMEN", "CHESTABDOMEN", "TSPINE")
        ],
        ({"AnatomicRegionSequence": code("51185008")}, ()),
        ({"AnatomicRegionSequence": code("85562004")}, (Refusal.OTHER_BODY_PART,)),
        ({"ViewPosition": None, "BodyPartExamined": None}, (Refusal.VIEW_UNKNOWN,)),
        ({"ViewPosition": "", "BodyPartExamined": "UNKNOWN"}, (Refusal.VIEW_UNKNOWN,)),
        (
            {"ViewPosition": "LL", "PatientAge": "005Y"},
            (Refusal.UNDER_AGE, Refusal.OTHER_VIEW),
        ),
    ],
)
def test_each_rule_refuses_what_it_names(
    tags: dict[str, Any], refusals: tuple[Refusal, ...]
) -> None:
    judgement = judge(make_header(**tags), RULES, Policy())
    assert judgement == Judgement(not refusals, tuple(str(reason) for reason in refusals))


@pytest.mark.parametrize(
    ("tags", "notes"),
    [
        ({"Modality": None}, ()),  # the SOP class says CR
        ({"Modality": None, "SOPClassUID": SECONDARY_CAPTURE}, (Note.NO_MODALITY,)),
        ({"ImageType": None}, (Note.NO_IMAGE_TYPE,)),
        ({"ViewPosition": None}, (Note.NO_VIEW,)),
        ({"BodyPartExamined": None}, (Note.NO_BODY_PART,)),
        ({"PatientAge": None}, (Note.NO_AGE,)),
        ({"PatientAge": None, "ViewPosition": None}, (Note.NO_AGE, Note.NO_VIEW)),
    ],
)
def test_a_missing_tag_refuses_nothing_but_is_noted(
    tags: dict[str, Any], notes: tuple[Note, ...]
) -> None:
    policy = Policy(unknown_age="accept", accept_secondary_capture=True)
    judgement = judge(make_header(**tags), RULES, policy)
    assert judgement == Judgement(True, tuple(str(note) for note in notes))


def test_a_site_may_take_secondary_captures() -> None:
    header = make_header(SOPClassUID=SECONDARY_CAPTURE, ImageType=["DERIVED", "SECONDARY"])
    assert judge(header, RULES, Policy(accept_secondary_capture=True)).eligible
    header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    assert judge(header, RULES, Policy(accept_secondary_capture=True)).reasons == (
        "secondary image",
    )


@pytest.mark.parametrize(
    ("tags", "age"),
    [
        ({"PatientAge": "054Y"}, 54),
        ({"PatientAge": "54Y"}, 54),
        ({"PatientAge": "018M"}, 1.5),
        ({"PatientAge": "010W"}, 10 / 52.18),
        ({"PatientAge": "010D"}, 10 / 365.25),
        ({"PatientAge": "000Y"}, 0),
        ({"PatientAge": "414Y"}, None),
        ({"PatientAge": "62"}, None),  # years or months: nobody knows
        ({"PatientAge": "6"}, 6),  # a child's in any unit
        ({"PatientAge": "old"}, None),
        ({"PatientBirthDate": "20080301", "StudyDate": "20260301"}, 18),
        ({"PatientBirthDate": "20080302", "StudyDate": "20260301"}, 17),
        ({"PatientBirthDate": "1950.01.31", "AcquisitionDate": "20260301"}, 76),
        ({"PatientBirthDate": "20270101", "StudyDate": "20260301"}, None),
        ({"PatientBirthDate": "19000101", "StudyDate": "20260301"}, None),
        ({"PatientBirthDate": "19501350", "StudyDate": "20260301"}, None),
        ({"PatientBirthDate": "19500101"}, None),
        ({"PatientAge": "030Y", "PatientBirthDate": "20200101", "StudyDate": "20260301"}, 30),
    ],
)
def test_age_is_read_in_all_its_forms(tags: dict[str, str], age: float | None) -> None:
    header = make_header(**{"PatientAge": None, **tags})
    assert read_age_years(header) == (None if age is None else pytest.approx(age))


def test_phantoms_belong_to_the_phantom_pipeline_alone() -> None:
    phantoms = EligibilityRules(phantoms_only=True)
    header = make_header()
    assert judge(header, phantoms, Policy()).reasons == ("not a simulated image",)
    header.private_block(0x0019, "FIRSTREAD SIMULATOR", create=True).add_new(1, "LO", "PHANTOM")
    assert judge(header, phantoms, Policy()).eligible
    assert judge(header, RULES, Policy()).reasons == ("simulated image",)
