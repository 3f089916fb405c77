"""Fill the data sets that a radiography unit writes, all but the pixels."""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    PYDICOM_IMPLEMENTATION_UID,
    UID,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

from common.pixels.header import PHANTOM_CREATOR, PHANTOM_ELEMENT, PHANTOM_GROUP, PHANTOM_VALUE
from firstread.scanner.encodings import Encoding
from firstread.scanner.patients import ISSUER, SyntheticPatient
from firstread.scanner.plans import StudyPlan

CR, DX = ComputedRadiographyImageStorage, DigitalXRayImageStorageForPresentation
_NAMESPACE = uuid.UUID("5b7e7f0e-6f0c-4c35-9d5f-1f4f7d0f3c11")
_FIELD_HEIGHT_MM = 430.0


def make_uid(*parts: object) -> UID:
    """Make the UID of a run's study, series or object; the same parts give the same.

    Source: PS3.5 B.2, UIDs under 2.25 from a UUID.
    """
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, '/'.join(map(str, parts))).int}")


@dataclass(frozen=True)
class StudyIdentity:
    """What all objects of one simulated study have in common."""

    run_id: str
    plan: StudyPlan
    patient: SyntheticPatient
    acquired_at: datetime

    @property
    def study_instance_uid(self) -> UID:
        """Unique to run and study."""
        return make_uid(self.run_id, self.plan.number)

    @property
    def accession_number(self) -> str:
        """Unique to run and study, at most 16 characters."""
        run = uuid.uuid5(_NAMESPACE, self.run_id).hex[:8].upper()
        return f"S{run}{self.plan.number:06d}"

    def series_uid(self, series: int) -> UID:
        """Unique to run, study and series."""
        return make_uid(self.run_id, self.plan.number, series)

    def sop_instance_uid(self, series: int) -> UID:
        """Name the one object of a series."""
        return make_uid(self.run_id, self.plan.number, series, 1)


def start_data_set(identity: StudyIdentity, sop_class: UID, series: int, modality: str) -> Dataset:
    """Start an object of any class: patient, study, order, series, equipment."""
    plan, patient, acquired_at = identity.plan, identity.patient, identity.acquired_at
    taken_at = acquired_at + timedelta(seconds=41 * (series - 1))
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = identity.sop_instance_uid(series)
    dataset.StudyDate, dataset.StudyTime = f"{acquired_at:%Y%m%d}", f"{acquired_at:%H%M%S}"
    dataset.SeriesDate, dataset.SeriesTime = f"{taken_at:%Y%m%d}", f"{taken_at:%H%M%S}"
    dataset.ContentDate, dataset.ContentTime = dataset.SeriesDate, dataset.SeriesTime
    dataset.TimezoneOffsetFromUTC = f"{acquired_at:%z}"
    dataset.AccessionNumber = identity.accession_number
    dataset.Modality = modality
    dataset.Manufacturer = "Firstread"
    dataset.ManufacturerModelName = "Simulated scanner"
    dataset.InstitutionName = "SIMULATED"
    dataset.StationName = plan.order.calling_ae_title
    dataset.ReferringPhysicianName = "NOBODY^Simulated"
    dataset.PatientName, dataset.PatientID = patient.name, patient.patient_id
    dataset.IssuerOfPatientID = ISSUER
    dataset.PatientBirthDate = f"{patient.birth_date:%Y%m%d}"
    dataset.PatientSex = patient.sex
    if plan.states_age:
        dataset.PatientAge = f"{patient.age_years(acquired_at.date()):03d}Y"
    dataset.StudyInstanceUID = identity.study_instance_uid
    dataset.SeriesInstanceUID = identity.series_uid(series)
    dataset.StudyID = str(plan.number)
    dataset.SeriesNumber, dataset.InstanceNumber = series, 1
    if plan.order.requested_procedure_priority:
        dataset.RequestedProcedurePriority = plan.order.requested_procedure_priority
    if plan.order.study_priority_id:
        dataset.StudyPriorityID = plan.order.study_priority_id
    dataset.preamble = b"\0" * 128
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.FileMetaInformationGroupLength = 0  # counted when it is written
    dataset.file_meta.FileMetaInformationVersion = b"\0\1"
    dataset.file_meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def start_radiograph(
    identity: StudyIdentity,
    series: int,
    encoding: Encoding,
    *,
    view: str,
    body_part: str = "CHEST",
    sop_class: UID | None = None,
) -> Dataset:
    """Start a CR, DX or other radiograph with the simulator's tag; its pixels are still to come.

    Args:
        identity: of the study.
        series: its number; each radiograph stands in a series of its own.
        encoding: says the polarity that the presentation has to tell.
        view: View Position, "" to leave it out.
        body_part: Body Part Examined.
        sop_class: if it is not the one of the plan.
    """
    kind = sop_class or {"CR": CR, "DX": DX}[identity.plan.sop_class]
    modality = "DX" if kind in (DX, DigitalXRayImageStorageForProcessing) else "CR"
    dataset = start_data_set(identity, kind, series, modality)
    block = dataset.private_block(PHANTOM_GROUP, PHANTOM_CREATOR, create=True)
    block.add_new(PHANTOM_ELEMENT, "LO", PHANTOM_VALUE)
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.StudyDescription = f"SIMULATED {body_part.lower()} radiograph"
    dataset.BodyPartExamined = body_part
    if view:
        dataset.ViewPosition = view
    dataset.PatientOrientation = ["L", "F"] if view in ("PA", "AP", "") else ["A", "F"]
    dataset.BurnedInAnnotation = "YES"
    dataset.LossyImageCompression = "00"
    spacing_mm = round(_FIELD_HEIGHT_MM / identity.plan.size_px[0], 6)
    dataset.ImagerPixelSpacing = [spacing_mm, spacing_mm]
    dataset.KVP = "120"
    if kind == CR:
        dataset.CassetteID = "SIM"
        return dataset
    if kind == SecondaryCaptureImageStorage:
        dataset.ConversionType = "WSD"
        dataset.ImageType = ["DERIVED", "SECONDARY"]
        return dataset
    _fill_digital_x_ray(dataset, encoding, for_processing=kind != DX, body_part=body_part)
    return dataset


def _fill_digital_x_ray(
    dataset: Dataset, encoding: Encoding, *, for_processing: bool, body_part: str
) -> None:
    """Add what the DX IOD asks for (PS3.3 A.26, C.8.11)."""
    dataset.PresentationIntentType = "FOR PROCESSING" if for_processing else "FOR PRESENTATION"
    dataset.PixelIntensityRelationship = "LIN" if for_processing else "LOG"
    dataset.PixelIntensityRelationshipSign = 1 if encoding.photometric == "MONOCHROME1" else -1
    dataset.RescaleIntercept, dataset.RescaleSlope = "0", "1"
    dataset.RescaleType = "US"
    inverse = encoding.photometric == "MONOCHROME1"
    dataset.PresentationLUTShape = "INVERSE" if inverse else "IDENTITY"
    half = 2 ** (encoding.bits_stored - 1)
    dataset.WindowCenter, dataset.WindowWidth = str(half), str(2 * half)
    dataset.DetectorType = "DIRECT"
    dataset.ImageLaterality = "U"
    dataset.AcquisitionContextSequence = Sequence()
    if body_part == "CHEST":
        region = Dataset()
        region.CodeValue, region.CodingSchemeDesignator = "51185008", "SCT"
        region.CodeMeaning = "Chest"
        dataset.AnatomicRegionSequence = Sequence([region])


def make_slice(identity: StudyIdentity, hounsfield: np.ndarray) -> Dataset:
    """Make one CT slice from Hounsfield units, int16 (H, W)."""
    dataset = start_data_set(identity, CTImageStorage, 1, "CT")
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.BodyPartExamined = "CHEST"
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = (
        [-180, -180, 0],
        [1, 0, 0, 0, 1, 0],
    )
    dataset.FrameOfReferenceUID = make_uid(identity.run_id, identity.plan.number, "frame")
    dataset.SliceThickness, dataset.KVP = "5", "120"
    dataset.PixelSpacing = [1.4, 1.4]
    dataset.RescaleIntercept, dataset.RescaleSlope = "-1024", "1"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = hounsfield.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    stored = np.clip(hounsfield.astype(np.int32) + 1024, 0, 4095).astype("<u2")
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def make_report(identity: StudyIdentity, sop_class: UID) -> Dataset:
    """Make a structured report of one sentence."""
    dataset = start_data_set(identity, sop_class, 1, "SR")
    dataset.ReferencedPerformedProcedureStepSequence = Sequence()
    dataset.PerformedProcedureCodeSequence = Sequence()
    dataset.ValueType, dataset.ContinuityOfContent = "CONTAINER", "SEPARATE"
    dataset.CompletionFlag, dataset.VerificationFlag = "COMPLETE", "UNVERIFIED"
    dataset.ConceptNameCodeSequence = Sequence(
        [_code("18748-4", "LN", "Diagnostic imaging report")]
    )
    sentence = Dataset()
    sentence.RelationshipType, sentence.ValueType = "CONTAINS", "TEXT"
    sentence.ConceptNameCodeSequence = Sequence([_code("121071", "DCM", "Finding")])
    sentence.TextValue = "SIMULATED: this report says nothing about anybody."
    dataset.ContentSequence = Sequence([sentence])
    return dataset


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code
