"""Make the objects of a planned study as files, with what should become of each."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    BasicTextSRStorage,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from common.states import AnalysisState, OrderPriority, Outcome
from firstread.scanner import breakage, data_sets, other_views
from firstread.scanner.cases import FATES, REPEATS, UNREADABLE, Case
from firstread.scanner.data_sets import CR, DX, StudyIdentity
from firstread.scanner.encodings import Encoding, quantise, set_pixels
from firstread.scanner.expectations import Box, ExpectedObject, ExpectedStudy
from firstread.scanner.outgoing import Outgoing
from firstread.scanner.patients import invent_patient
from firstread.scanner.plans import StudyPlan
from model.phantoms import generate_phantom

# What is broken needs a syntax in which it can be broken; the rest use the plan's.
_CASE_ENCODINGS = {
    Case.SHORT_PIXELS: Encoding(ExplicitVRLittleEndian, "MONOCHROME2", 12),
    Case.GARBLED_PIXELS: Encoding(RLELossless, "MONOCHROME2", 12),
    Case.MALFORMED_UID: Encoding(ImplicitVRLittleEndian, "MONOCHROME1", 12),
    Case.CUT_STREAM: Encoding(JPEGLosslessSV1, "MONOCHROME2", 12),
}
# Phantoms are drawn far from the seeds that a model may have been trained on.
_FIRST_PHANTOM_SEED = 2**40
_PHANTOMS_PER_SEED = 1_000_000


@dataclass(frozen=True)
class Made:
    """One object: its data set, what is true of its picture, and its way into a file."""

    dataset: Dataset
    lesion_boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class WrittenStudy:
    """A study that lies on disk, ready to be sent."""

    outgoing: list[Outgoing]
    expected: ExpectedStudy


class Scanner:
    """Writes the studies of one run. Same seed, run and start: the same bytes.

    Args:
        seed: gives patients and pictures.
        run_id: tells the run's UIDs from those of other runs with the same seed.
        started_at: an aware instant; studies of today are dated just before it.
        folder: where the files go, one folder for each study.
    """

    def __init__(self, seed: int, run_id: str, started_at: datetime, folder: Path) -> None:
        self._seed, self._run_id, self._folder = seed, run_id, folder
        self._started_at = started_at

    def write_study(self, plan: StudyPlan) -> WrittenStudy:
        """Write a planned study's objects in the order of sending."""
        identity = self._identify(plan)
        folder = self._folder / f"{plan.number:05d}"
        folder.mkdir(parents=True, exist_ok=True)
        outgoing, expected, series = [], [], 0
        for position, case in enumerate(plan.cases):
            series += case not in REPEATS
            made = self._make(case, identity, series)
            path = folder / f"{position + 1}-{case}.dcm"
            sop_instance_uid = _write(made.dataset, path, case)
            meta = made.dataset.file_meta
            outgoing.append(
                Outgoing(
                    path,
                    str(meta.MediaStorageSOPClassUID),
                    sop_instance_uid,
                    str(meta.TransferSyntaxUID),
                    plan.order.calling_ae_title,
                )
            )
            expected.append(_expect(case, outgoing[-1], made))
        return WrittenStudy(outgoing, _expect_study(identity, expected))

    def _identify(self, plan: StudyPlan) -> StudyIdentity:
        started_at = self._started_at
        patient = invent_patient(
            self._seed, plan.patient_number, started_at.date(), child=Case.CHILD in plan.cases
        )
        minutes = 4 + (plan.number * 37) % 50
        acquired_at = started_at - timedelta(days=plan.acquired_days_ago, minutes=minutes)
        return StudyIdentity(self._run_id, plan, patient, acquired_at)

    def _make(self, case: Case, identity: StudyIdentity, series: int) -> Made:
        plan = identity.plan
        seed = _FIRST_PHANTOM_SEED + self._seed * _PHANTOMS_PER_SEED + plan.number
        if case is Case.CT_SLICE:
            return Made(data_sets.make_slice(identity, other_views.draw_slice_hu(seed)))
        if case is Case.REPORT:
            return Made(data_sets.make_report(identity, BasicTextSRStorage))
        encoding = _CASE_ENCODINGS.get(case, plan.encoding)
        if case is Case.OTHER_SYNTAX:
            encoding = _recoded(plan.encoding)
        view, part, boxes = ("PA" if seed % 3 else "AP") if plan.states_view else "", "CHEST", ()
        if case is Case.LATERAL:
            view, image = "LL", other_views.draw_lateral(seed, plan.size_px)
        elif case is Case.HAND:
            view, part, image = "PA", "HAND", other_views.draw_hand(seed, plan.size_px)
        else:
            number = seed + _PHANTOMS_PER_SEED // 2 if case is Case.OTHER_PIXELS else seed
            phantom = generate_phantom(number, lesion=plan.lesion, size_px=plan.size_px)
            image, boxes = phantom.image, tuple(phantom.lesion_boxes)
        sop_class = {
            Case.FOR_PROCESSING: DigitalXRayImageStorageForProcessing,
            Case.SECONDARY_CAPTURE: SecondaryCaptureImageStorage,
            Case.WRONG_CLASS: DX,
        }.get(case)
        dataset = data_sets.start_radiograph(
            identity, series, encoding, view=view, body_part=part, sop_class=sop_class
        )
        if case is Case.CHILD:
            dataset.PatientAge = f"{identity.patient.age_years(identity.acquired_at.date()):03d}Y"
        set_pixels(dataset, quantise(image, encoding), encoding)
        _break(dataset, case, seed)
        return Made(dataset, boxes)


def _recoded(encoding: Encoding) -> Encoding:
    """Choose another syntax for the same stored values."""
    native = encoding.transfer_syntax == ExplicitVRLittleEndian
    return replace(encoding, transfer_syntax=RLELossless if native else ExplicitVRLittleEndian)


def _break(dataset: Dataset, case: Case, seed: int) -> None:
    if case is Case.SHORT_PIXELS:
        breakage.shorten_pixels(dataset)
    elif case is Case.GARBLED_PIXELS:
        breakage.garble_pixels(dataset, seed)
    elif case is Case.CUT_STREAM:
        breakage.cut_stream(dataset)
    elif case is Case.NO_STUDY_UID:
        del dataset.StudyInstanceUID
    elif case is Case.WRONG_CLASS:
        dataset.file_meta.MediaStorageSOPClassUID = CR


def _write(dataset: Dataset, path: Path, case: Case) -> str:
    """Write a Part 10 file; return the SOP Instance UID that will be announced."""
    buffer = BytesIO()
    # not enforced, because that would mend the file meta that is wrong on purpose
    dataset.save_as(buffer, enforce_file_format=False)
    encoded, uid = buffer.getvalue(), str(dataset.SOPInstanceUID)
    if case is Case.MALFORMED_UID:
        encoded, uid = breakage.malform_uid(encoded, UID(uid))
    path.write_bytes(encoded)
    return uid


def _expect(case: Case, outgoing: Outgoing, made: Made) -> ExpectedObject:
    fate = FATES[case]
    done = fate.state is AnalysisState.DONE
    return ExpectedObject(
        path=outgoing.path,
        case=case,
        calling_ae_title=outgoing.calling_ae_title,
        sop_class_uid=outgoing.sop_class_uid,
        sop_instance_uid=outgoing.sop_instance_uid,
        transfer_syntax_uid=outgoing.transfer_syntax_uid,
        rows=made.dataset.get("Rows"),
        columns=made.dataset.get("Columns"),
        status=fate.status,
        registered=fate.registered,
        state=fate.state,
        outcome=(Outcome.FLAGGED if made.lesion_boxes else Outcome.NOT_FLAGGED) if done else None,
        lesion_boxes=list(made.lesion_boxes),
        reason=fate.reason,
    )


def _expect_study(identity: StudyIdentity, objects: list[ExpectedObject]) -> ExpectedStudy:
    order = identity.plan.order
    taken = [one for one in objects if one.registered]
    outcomes = {one.outcome for one in taken}
    if Outcome.FLAGGED in outcomes:
        outcome = Outcome.FLAGGED
    elif any(one.case in UNREADABLE for one in taken):
        outcome = Outcome.INCOMPLETE
    elif Outcome.NOT_FLAGGED in outcomes:
        outcome = Outcome.NOT_FLAGGED
    else:
        outcome = Outcome.NOT_ELIGIBLE if taken else None
    by_order = {OrderPriority.STAT: 0, OrderPriority.URGENT: 1, OrderPriority.ROUTINE: 2}
    return ExpectedStudy(
        study_instance_uid=str(identity.study_instance_uid),
        accession_number=identity.accession_number,
        patient_id=identity.patient.patient_id,
        order_priority=order.priority,
        priority_source=order.source,
        prior=identity.plan.acquired_days_ago > 0,
        registered=bool(taken),
        outcome=outcome,
        band_if_flagged=min(1, by_order[order.priority]),
        band_if_not_flagged=by_order[order.priority],
        objects=objects,
    )
