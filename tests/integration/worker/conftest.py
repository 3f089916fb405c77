"""A worker on real servers, with objects and a model that say what they do."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from common.archive import Archive
from common.settings import Settings
from common.tables import Analysis, Instance
from model.bundles import Bundle
from tests.ledger import add_study
from tests.worker_parts import examine_text, load_echo, make_bundle
from worker.registration import register
from worker.service import Service


@dataclass
class Ledger:
    """The test's database, with a live model and a hand to queue objects."""

    sessions: sessionmaker[Session]
    settings: Settings
    bundle: Bundle
    model_version_id: int

    def queue(self, *contents: str, images: int = 1) -> list[int]:
        """Add a study for each content; returns the analyses' ids."""
        archive = Archive(self.settings.archive_path)
        with self.sessions.begin() as session:
            studies = [
                add_study(
                    session,
                    self.settings,
                    model_version_id=self.model_version_id,
                    images=images,
                ).id
                for _ in contents
            ]
            rows = session.execute(
                select(Analysis.id, Instance.path)
                .join(Instance, Instance.id == Analysis.instance_id)
                .where(Analysis.study_id.in_(studies))
                .order_by(Analysis.id)
            ).all()
        for number, row in enumerate(rows):
            path = archive.path(row.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(contents[number // images])
        return [row.id for row in rows]

    def row(self, analysis_id: int) -> Analysis:
        """Read a row as it stands."""
        with self.sessions() as session:
            return session.get_one(Analysis, analysis_id)

    def rows(self) -> list[Analysis]:
        """Read all rows."""
        with self.sessions() as session:
            return list(session.scalars(select(Analysis).order_by(Analysis.id)))


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Give settings of a small and impatient worker."""
    return settings.model_copy(
        update={
            "worker_threads": 4,
            "decode_processes": 1,
            "decode_deadline_s": 2.0,
            "max_batch": 4,
        }
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Give a complete bundle whose weights mean nothing."""
    return make_bundle(tmp_path / "bundles" / "echo")


@pytest.fixture
def ledger(sessions: sessionmaker[Session], settings: Settings, bundle: Bundle) -> Ledger:
    """Give a ledger in which the bundle is live."""
    with sessions.begin() as session:
        (version,) = register(session, [bundle], actor="test")
    return Ledger(sessions, settings, bundle, version.id)


@pytest.fixture
def make_service() -> Iterator[Callable[[Settings], Service]]:
    """Make workers without Celery around them; they are stopped after the test."""
    services: list[Service] = []

    def make(settings: Settings) -> Service:
        service = Service(settings, load=load_echo, examine=examine_text)
        services.append(service)
        service.start()
        return service

    yield make
    for service in services:
        service.stop()
