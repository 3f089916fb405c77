"""Rows for tests that start in the middle of the flow: a study with images, a live model."""

import hashlib
from datetime import UTC, datetime, timedelta
from itertools import count

from sqlalchemy.orm import Session

from common.lifecycle import Result
from common.settings import Settings
from common.states import AnalysisState, Lane, ModelState, Outcome
from common.tables import Analysis, Instance, ModelVersion, Patient, Series, Study
from common.worklist import database_now, derive_item

numbers = count(1)


def add_model(session: Session, pipeline: str = "chest_xray", threshold: float = 0.5) -> int:
    """Register a live model version; returns its id."""
    number = next(numbers)
    version = ModelVersion(
        pipeline=pipeline,
        name="test",
        version=str(number),
        bundle_sha256=hashlib.sha256(f"bundle {number}".encode()).hexdigest(),
        folder="/nowhere",
        threshold=threshold,
        state=ModelState.LIVE,
    )
    session.add(version)
    session.flush()
    return version.id


def add_study(
    session: Session,
    settings: Settings,
    *,
    model_version_id: int | None,
    images: int = 1,
    received_before: timedelta = timedelta(0),
    acquired_before: timedelta | None = None,
    requested_procedure_priority: str = "",
    source_ae_title: str = "TEST",
) -> Study:
    """Add a received study whose images wait for analysis."""
    number = next(numbers)
    now = database_now(session)
    received = now - received_before
    study = Study(
        patient=Patient(issuer_of_patient_id="", patient_id=f"P{number}", patient_id_stated=True),
        study_instance_uid=f"2.25.{number}",
        accession_number=f"A{number}",
        requested_procedure_priority=requested_procedure_priority,
        source_ae_title=source_ae_title,
        first_received_at=received,
        last_received_at=received,
        acquired_at=None if acquired_before is None else received - acquired_before,
    )
    study.series = [Series(series_instance_uid=f"2.25.{number}.1", modality="DX")]
    session.add(study)
    session.flush()
    for _ in range(images):
        add_image(session, settings, study, model_version_id=model_version_id)
    derive_item(session, study.id, settings)
    return study


def add_image(
    session: Session, settings: Settings, study: Study, *, model_version_id: int | None
) -> Analysis:
    """Add one received image to a study, queued for analysis."""
    number = next(numbers)
    digest = hashlib.sha256(str(number).encode()).digest()
    instance = Instance(
        series=study.series[0],
        sop_instance_uid=f"2.25.{number}.1.1",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1.1",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        path=f"objects/{number}.dcm",
        size_bytes=1,
        sha256=digest,
        source_ae_title="TEST",
        source_address="127.0.0.1",
        received_at=study.last_received_at,
    )
    analysis = Analysis(
        study_id=study.id,
        instance=instance,
        pipeline="chest_xray",
        model_version_id=model_version_id,
        inputs_sha256=digest,
        state=AnalysisState.QUEUED,
        lane=Lane.CURRENT,
        due_at=study.first_received_at + timedelta(hours=24),
        received_at=study.last_received_at,
        queued_at=study.last_received_at,
    )
    session.add(analysis)
    session.flush()
    derive_item(session, study.id, settings, settled=False)
    return analysis


def result(probability: float, threshold: float = 0.5) -> Result:
    """Make a result as the worker would store it."""
    now = datetime.now(UTC)
    return Result(
        score=0.0,
        probability=probability,
        outcome=Outcome.FLAGGED if probability >= threshold else Outcome.NOT_FLAGGED,
        reasons=(),
        insight_probability=probability,
        heatmap=bytes(2 * 4),
        heatmap_rows=2,
        heatmap_columns=2,
        heatmap_affine=(100.0, 0.0, 0.0, 0.0, 100.0, 0.0),
        rows=100,
        columns=100,
        rendition=None,
        decoded_at=now,
        predicted_at=now,
    )
