"""One transaction per object: patient, study, series, instance, analysis, place on the worklist.

Rows are taken in one order (a new patient's, the study's, the patient's to fill in, series,
instance, worklist item) and each object has one of each: no two transactions can wait for one
another in a circle. The study's row is locked throughout, so objects of one study are registered
one after the other.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from common.lifecycle import live_version_id, requeue_order
from common.settings import Settings
from common.states import AnalysisState, Purpose, SetAsideKind
from common.tables import (
    Analysis,
    Instance,
    Patient,
    Series,
    Study,
)
from common.worklist import database_now, derive_item, study_lane
from dicom_listener import routing
from dicom_listener.attributes import Attributes, urgency
from dicom_listener.clashes import Clash, Known, Received, find_known

# What a later object may fill in where the earlier ones said nothing; never overwritten.
_PATIENT_TEXTS = ("patient_name", "patient_birth_date", "patient_sex")
_STUDY_TEXTS = ("accession_number", "study_description", "study_date", "study_time", "patient_age")


@dataclass(frozen=True)
class Registered:
    """A new instance, and the analysis to ring for; None if no pipeline takes it."""

    queued_analysis_id: int | None


def register(
    session: Session, received: Received, settings: Settings
) -> Registered | Known | Clash:
    """Write the rows of one object. The caller commits what was registered, and rolls back a clash.

    Safe to repeat: the same object again is ``Known`` and changes nothing.
    """
    attributes = received.attributes
    now = database_now(session)
    study = _study(session, received, settings, now)
    patient = session.get_one(Patient, study.patient_id)
    known = find_known(session, received)
    if known is None and not _is_patient(patient, attributes, settings):
        known = Clash(SetAsideKind.PATIENT_DIFFERS)
    if known is not None:
        return known
    series = _series(session, study, attributes)
    if series.study_id != study.id:
        return Clash(SetAsideKind.HIERARCHY_DIFFERS)
    instance_id = _instance(session, series.id, received, now)
    if instance_id is None:  # another sender of the same object was faster
        return find_known(session, received) or Clash(SetAsideKind.HIERARCHY_DIFFERS)
    _follow_up(session, study, patient, attributes, now)
    analysis = _analysis(session, study, instance_id, received, settings, now)
    item = derive_item(session, study.id, settings, settled=False)
    analysis.band, analysis.due_at = item.band, item.due_at
    session.flush()
    requeue_order(session, item)
    return Registered(analysis.id if analysis.state is AnalysisState.QUEUED else None)


def _study(session: Session, received: Received, settings: Settings, now: datetime) -> Study:
    """Find or make the study, and its patient if it is new, and lock it."""
    attributes = received.attributes
    found = (
        select(Study)
        .filter_by(study_instance_uid=attributes.study_instance_uid)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    study = session.execute(found).scalar_one_or_none()
    if study is None:
        session.execute(
            insert(Study)
            .values(
                patient_id=_new_patient_id(session, attributes, settings),
                study_instance_uid=attributes.study_instance_uid,
                acquired_at=attributes.acquired_at,
                requested_procedure_priority=attributes.requested_procedure_priority,
                study_priority_id=attributes.study_priority_id,
                source_ae_title=received.source_ae_title,
                first_received_at=now,
                last_received_at=now,
                **{name: getattr(attributes, name) for name in _STUDY_TEXTS},
            )
            .on_conflict_do_nothing()
        )
        study = session.execute(found).scalar_one()  # another sender's, if it was faster
    return study


def _new_patient_id(session: Session, attributes: Attributes, settings: Settings) -> int:
    """Find or make the person of a new study."""
    issuer, patient_id = _identity(attributes, settings)
    session.execute(
        insert(Patient)
        .values(
            issuer_of_patient_id=issuer,
            patient_id=patient_id,
            patient_id_stated=bool(attributes.patient_id),
            **{name: getattr(attributes, name) for name in _PATIENT_TEXTS},
        )
        .on_conflict_do_nothing()
    )
    return session.execute(
        select(Patient.id).filter_by(issuer_of_patient_id=issuer, patient_id=patient_id)
    ).scalar_one()


def _identity(attributes: Attributes, settings: Settings) -> tuple[str, str]:
    """Give issuer and ID. Without PatientID an object is a person of its own study."""
    if not attributes.patient_id:
        return "", attributes.study_instance_uid
    return attributes.issuer_of_patient_id or settings.default_issuer, attributes.patient_id


def _is_patient(patient: Patient, attributes: Attributes, settings: Settings) -> bool:
    """Say whether the study's patient is this one. An issuer that one side omits is no other."""
    if patient.patient_id_stated != bool(attributes.patient_id):
        return False
    issuer, patient_id = _identity(attributes, settings)
    one_omits = not attributes.issuer_of_patient_id or not patient.issuer_of_patient_id
    return patient.patient_id == patient_id and (
        one_omits or patient.issuer_of_patient_id == issuer
    )


def _series(session: Session, study: Study, attributes: Attributes) -> Series:
    session.execute(
        insert(Series)
        .values(
            study_id=study.id,
            series_instance_uid=attributes.series_instance_uid,
            modality=attributes.modality,
            body_part_examined=attributes.body_part_examined,
            series_description=attributes.series_description,
        )
        .on_conflict_do_nothing()
    )
    return session.execute(
        select(Series).filter_by(series_instance_uid=attributes.series_instance_uid)
    ).scalar_one()


def _instance(session: Session, series_id: int, received: Received, now: datetime) -> int | None:
    attributes = received.attributes
    return session.execute(
        insert(Instance)
        .values(
            series_id=series_id,
            sop_instance_uid=attributes.sop_instance_uid,
            sop_class_uid=attributes.sop_class_uid,
            transfer_syntax_uid=received.transfer_syntax_uid,
            instance_number=attributes.instance_number,
            view_position=attributes.view_position,
            path=received.path,
            size_bytes=received.size_bytes,
            sha256=received.sha256,
            source_ae_title=received.source_ae_title,
            source_address=received.source_address,
            received_at=now,
        )
        .on_conflict_do_nothing()
        .returning(Instance.id)
    ).scalar_one_or_none()


def _follow_up(
    session: Session, study: Study, patient: Patient, attributes: Attributes, now: datetime
) -> None:
    """Let a later object of the study add to it: time, what was blank, a more urgent order."""
    study.last_received_at = max(study.last_received_at, now)
    for name in _STUDY_TEXTS:
        if not getattr(study, name):
            setattr(study, name, getattr(attributes, name))
    for name in _PATIENT_TEXTS:
        if getattr(attributes, name) and not getattr(patient, name):
            setattr(patient, name, getattr(attributes, name))
    study.acquired_at = study.acquired_at or attributes.acquired_at
    for name in ("requested_procedure_priority", "study_priority_id"):
        said = getattr(attributes, name)
        if said and (not getattr(study, name) or urgency(said) < urgency(getattr(study, name))):
            setattr(study, name, said)
    session.flush()


def _analysis(
    session: Session,
    study: Study,
    instance_id: int,
    received: Received,
    settings: Settings,
    now: datetime,
) -> Analysis:
    """Make the unit of work, or say that there is none: an instance without one would be lost."""
    is_routed = received.pipeline != routing.NONE
    analysis = Analysis(
        study_id=study.id,
        instance_id=instance_id,
        pipeline=received.pipeline,
        model_version_id=live_version_id(session, received.pipeline) if is_routed else None,
        inputs_sha256=received.sha256,
        purpose=Purpose.LIVE,
        state=AnalysisState.QUEUED if is_routed else AnalysisState.NOT_ELIGIBLE,
        reasons=[] if is_routed else [routing.refusal(received.attributes.sop_class_uid)],
        lane=study_lane(study, settings),
        due_at=now,
        received_at=now,
        queued_at=now,
        finished_at=None if is_routed else now,
    )
    session.add(analysis)
    session.flush()
    return analysis
