"""Objects that retention deleted and a sender brings again, also while it deletes."""

import threading
from datetime import timedelta

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from common.archive import Archive
from common.reading import mark_read
from common.retention import Retention
from common.settings import Settings
from common.states import AnalysisState
from common.tables import Analysis, Instance, Reading, Study
from common.worklist import derive_item
from tests.integration.listener.conftest import Listen, radiograph, send

Sessions = sessionmaker[Session]


def make_old(sessions: Sessions, settings: Settings) -> None:
    """Let everything have been analysed and read long ago."""
    long_ago = func.now() - timedelta(days=90)
    with sessions.begin() as session:
        # The study before its place, as everybody takes them.
        session.execute(update(Study).values(last_received_at=long_ago))
        session.execute(
            update(Analysis).values(
                state=AnalysisState.NOT_ELIGIBLE, reasons=["test"], finished_at=func.now()
            )
        )
        for study in session.scalars(select(Study)):
            derive_item(session, study.id, settings, settled=True)
            mark_read(session, study, "anna", settings, instances_seen=99)
        session.execute(update(Reading).values(read_at=long_ago))


def stored(sessions: Sessions, settings: Settings) -> list[tuple[bool, bool]]:
    """Give for each object whether its row says that it is there, and whether it is."""
    archive = Archive(settings.archive_path)
    with sessions() as session:
        rows = session.scalars(select(Instance)).all()
    return [(row.deleted_at is None, archive.path(row.path).exists()) for row in rows]


def test_an_object_that_was_deleted_is_taken_again(listen: Listen, sessions: Sessions) -> None:
    settings = listen(retain_days=30.0)
    images = [radiograph(), radiograph()]
    assert send(settings, *images) == [0, 0]
    make_old(sessions, settings)
    retention = Retention(sessions, settings)
    assert retention.run(delete=True).instances == 2
    assert stored(sessions, settings) == [(False, False)] * 2
    assert send(settings, images[0], images[0]) == [0, 0]
    assert sorted(stored(sessions, settings)) == [(False, False), (True, True)]
    assert retention.run(delete=True).instances == 0, "it has just come back"
    with sessions() as session:
        assert session.scalar(select(func.count()).select_from(Analysis)) == 2


def test_whatever_is_acknowledged_while_retention_runs_is_there(
    listen: Listen, sessions: Sessions
) -> None:
    settings = listen(retain_days=30.0)
    images = [radiograph() for _ in range(6)]
    assert send(settings, *images) == [0] * 6
    retention = Retention(sessions, settings)
    stop, deleted = threading.Event(), 0

    def delete() -> None:
        nonlocal deleted
        while not stop.is_set():
            make_old(sessions, settings)
            deleted += retention.run(delete=True).instances

    thread = threading.Thread(target=delete)
    thread.start()
    statuses: list[int] = []
    try:
        while deleted < 30 and thread.is_alive():
            statuses += send(settings, *images)
    finally:
        stop.set()
        thread.join(30)
    assert deleted >= 30
    assert set(statuses) <= {0, 0xA700}  # "being deleted in this instant" may be sent again
    assert statuses.count(0) > 30
    assert all(says == is_there for says, is_there in stored(sessions, settings))
    assert send(settings, *images) == [0] * 6
    assert stored(sessions, settings) == [(True, True)] * 6
