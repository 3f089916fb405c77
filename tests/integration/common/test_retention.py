"""Retention on a real Postgres and a real folder: what may go goes, whatever else happens."""

import multiprocessing
import os
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select, text, update
from sqlalchemy.orm import Session, sessionmaker

from common.archive import Archive
from common.commitment_tables import CommitmentItem, CommitmentRequest
from common.database import make_engine, make_sessions
from common.errors import StorageUnavailableError
from common.lifecycle import claim, finish
from common.queue import make_celery
from common.reading import mark_read, undo_read
from common.rerunning import reprocess, retry
from common.retention import Retention, Summary
from common.settings import Settings
from common.states import AnalysisState
from common.tables import Analysis, AuditEvent, Instance, Reading, Study
from common.worklist import derive_item
from dashboard.study_record import read_study
from dashboard.viewer import payload
from tests.ledger import add_image, add_model, add_study, result
from worker.upkeep import Upkeep

Sessions = sessionmaker[Session]


class Site:
    """A ledger and an archive with studies in every state."""

    def __init__(self, sessions: Sessions, settings: Settings) -> None:
        self.sessions = sessions
        self.settings = settings.model_copy(update={"retain_days": 30.0})
        self.archive = Archive(settings.archive_path)
        self.archive.prepare()
        with sessions.begin() as session:
            self.model = add_model(session)

    def study(
        self, *, images: int = 2, read_days_ago: float | None = 40, done: bool = True
    ) -> Study:
        """Add a study, its files, its results, and its reading."""
        with self.sessions.begin() as session:
            study = add_study(session, self.settings, model_version_id=self.model, images=images)
            for instance in session.scalars(
                select(Instance).where(Instance.series == study.series[0])
            ):
                instance.path = self.archive.object_name(instance.sha256)
                for name in (instance.path, self.archive.rendition_name(instance.sha256)):
                    path = self.archive.path(name)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(b"x" * 1000)
                instance.size_bytes = 1000
        while done and self.finish_one():
            pass
        with self.sessions.begin() as session:
            derive_item(session, study.id, self.settings, settled=True)
            if read_days_ago is not None:
                mark_read(session, study, "anna", self.settings, instances_seen=images)
                session.flush()
                long_ago = func.now() - timedelta(days=read_days_ago)
                session.execute(
                    update(Reading).where(Reading.study_id == study.id).values(read_at=long_ago)
                )
                session.execute(
                    update(Study).where(Study.id == study.id).values(last_received_at=long_ago)
                )
        return study

    def finish_one(self) -> bool:
        with self.sessions.begin() as session:
            claimed = claim(session, worker="w", model_version_ids=[self.model], lease_s=60)
            return claimed is not None and finish(session, claimed, result(0.1), self.settings)

    def retention(self, **rule: float) -> Retention:
        return Retention(self.sessions, self.settings.model_copy(update=rule))

    def rows(self, study: Study) -> list[Instance]:
        with self.sessions() as session:
            wanted = select(Instance).where(Instance.series_id == study.series[0].id)
            return list(session.scalars(wanted.order_by(Instance.id)))

    def files(self, study: Study) -> int:
        """Count a study's files; a row and its file say the same, always."""
        rows = self.rows(study)
        names = [n for r in rows for n in (r.path, self.archive.rendition_name(r.sha256))]
        there = [self.archive.path(name).exists() for name in names]
        for row in rows:
            exists = self.archive.path(row.path).exists()
            assert exists or row.deleted_at is not None, "a row points to a missing file"
            assert not (exists and row.file_removed_at is not None)
        return sum(there)

    def commit(self, study: Study) -> list[str]:
        """Let Firstread have committed to a study's objects."""
        uids = [row.sop_instance_uid for row in self.rows(study)]
        with self.sessions.begin() as session:
            request = CommitmentRequest(
                transaction_uid="2.25.1", calling_ae_title="CT", source_address="127.0.0.1"
            )
            request.items = [
                CommitmentItem(
                    position=number, sop_class_uid="1.2", sop_instance_uid=uid, succeeded=True,
                    checked_at=func.now(),
                )
                for number, uid in enumerate(uids)
            ]  # fmt: skip
            session.add(request)
        return uids


@pytest.fixture
def site(sessions: Sessions, settings: Settings) -> Site:
    return Site(sessions, settings)


def test_what_was_read_long_ago_goes_and_nothing_else(site: Site, sessions: Sessions) -> None:
    old, young = site.study(), site.study(read_days_ago=20)
    unread = site.study(read_days_ago=None)
    queued = site.study(done=False)
    kept = (young, unread, queued)
    assert site.retention().run(delete=False) == Summary(1, 2, 2000)
    assert [site.files(study) for study in (old, *kept)] == [4, 4, 4, 4]
    assert site.retention().run(delete=True) == Summary(1, 2, 2000)
    assert [site.files(study) for study in (old, *kept)] == [0, 4, 4, 4]
    assert site.retention().run(delete=True) == Summary()
    with sessions() as session:
        (event,) = session.scalars(select(AuditEvent).filter_by(action="instances_deleted"))
        assert session.scalar(select(func.count()).select_from(Analysis)) == 8
    assert event.study_instance_uid == old.study_instance_uid
    assert event.detail["sop_instance_uids"] == [row.sop_instance_uid for row in site.rows(old)]


def test_running_reopened_and_new_images_keep_a_study(site: Site, sessions: Sessions) -> None:
    running, reopened, late = site.study(), site.study(), site.study()
    with sessions.begin() as session:
        assert reprocess(session, running.id, site.settings)
    with sessions.begin() as session:
        assert claim(session, worker="w", model_version_ids=[site.model], lease_s=60)
        undo_read(session, session.get_one(Study, reopened.id), "anna", site.settings)
        study = session.get_one(Study, late.id)
        add_image(session, site.settings, study, model_version_id=site.model)
    while site.finish_one():
        pass
    assert site.retention().run(delete=True) == Summary()


def test_for_room_the_longest_read_go_first_and_no_more_than_needed(site: Site) -> None:
    studies = [site.study(read_days_ago=days) for days in (3, 1, 2)]
    free = site.archive.free_bytes()
    rule = {"retain_days": 0.0, "retain_free_bytes": free * 2}
    assert site.retention(**rule).run(delete=False).studies == 3
    assert site.retention(**rule).run(delete=True, studies=2).studies == 2
    assert [site.files(study) for study in studies] == [0, 4, 0]
    assert site.retention(retain_days=0.0, retain_free_bytes=1).run(delete=True) == Summary()


def test_what_we_committed_to_stays_until_the_sites_archive_has(site: Site) -> None:
    study = site.study(images=3)
    uids = site.commit(study)
    assert site.retention().run(delete=True) == Summary(0, 0, 0, 3)
    assert site.files(study) == 6
    assert site.retention().confirm([*uids[:2], "2.25.404"]) == 2
    assert site.retention().run(delete=True) == Summary(1, 2, 2000, 1)
    assert site.files(study) == 2
    assert [row.deleted_at is None for row in site.rows(study)] == [False, False, True]


def test_a_commitment_made_between_mark_and_removal_spares_the_file(
    site: Site, sessions: Sessions
) -> None:
    study = site.study(images=1)
    with sessions.begin() as session:
        session.execute(update(Instance).values(deleted_at=func.now()))
    site.commit(study)
    assert site.retention().finish_deletions() == 0
    assert site.rows(study)[0].deleted_at is None
    assert site.files(study) == 2


def test_a_run_killed_after_the_mark_is_finished_by_the_next(
    site: Site, sessions: Sessions
) -> None:
    study = site.study()
    with sessions.begin() as session:  # what is committed before any file is touched
        session.execute(update(Instance).values(deleted_at=func.now()))
    site.archive.path(site.rows(study)[0].path).unlink()  # killed between two files
    assert site.retention().run(delete=True) == Summary()
    assert site.files(study) == 0
    assert all(row.file_removed_at is not None for row in site.rows(study))


def run_until_killed(url: str, values: dict[str, object], kill_after: int) -> None:
    """Retain in a process that dies at its nth removal."""
    retention = Retention(make_sessions(make_engine(url)), Settings.model_validate(values))
    seen = 0

    def die(_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == kill_after:
            os.kill(os.getpid(), 9)

    retention.run(delete=True, progress=die)


def test_killed_at_any_study_no_row_points_to_a_missing_file(site: Site, database_url: str) -> None:
    studies = [site.study(images=1) for _ in range(4)]
    values = {"home": str(site.settings.home), "retain_days": 30.0, "database_url": database_url}
    process = multiprocessing.get_context("spawn").Process(
        target=run_until_killed, args=(database_url, values, 2)
    )
    process.start()
    process.join(60)
    assert process.exitcode == -9
    assert sorted(site.files(study) for study in studies) == [0, 0, 2, 2]
    assert site.retention().run(delete=True).studies == 2
    assert sum(site.files(study) for study in studies) == 0


def test_a_disk_that_refuses_leaves_the_rows_marked(site: Site, tmp_path: Path) -> None:
    study = site.study(images=1)
    path = site.archive.path(site.rows(study)[0].path)
    path.unlink()
    path.mkdir()  # what cannot be unlinked as a file
    with pytest.raises(StorageUnavailableError):
        site.retention().run(delete=True)
    (row,) = site.rows(study)
    assert row.deleted_at is not None
    assert row.file_removed_at is None
    path.rmdir()
    assert site.retention().finish_deletions() == 1


def test_a_reader_who_brings_a_study_back_first_keeps_it(
    site: Site, sessions: Sessions, engine: Engine
) -> None:
    study = site.study()
    done: list[Summary] = []
    with sessions() as session:
        undo_read(session, session.get_one(Study, study.id), "anna", site.settings)
        thread = threading.Thread(
            target=lambda: done.append(site.retention().run(delete=True)), daemon=True
        )
        thread.start()
        waiting = text(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND "
            "datname = current_database()"
        )
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as other:
            while not other.scalar(waiting):
                thread.join(0.02)
                assert thread.is_alive()
        session.commit()
    thread.join(10)
    assert done == [Summary()]
    assert site.files(study) == 4


def test_the_page_says_that_an_image_was_deleted(site: Site, sessions: Sessions) -> None:
    study = site.study(images=1)
    site.retention().run(delete=True)
    with sessions() as session:
        record = read_study(session, study.study_instance_uid)
    assert record is not None
    (image,) = record.images
    assert image.deleted
    assert b"Deleted here after it was read." in payload(image, site.archive, "title")
    assert image.probability == 0.1


def test_what_was_deleted_is_neither_reprocessed_nor_retried(
    site: Site, sessions: Sessions
) -> None:
    study = site.study()
    site.retention().run(delete=True)
    with sessions.begin() as session:
        session.execute(
            update(Analysis).values(
                state=AnalysisState.FAILED, outcome=None, error="x", finished_at=func.now()
            )
        )
    with sessions.begin() as session:
        assert reprocess(session, study.id, site.settings) == []
        ids = session.scalars(select(Analysis.id)).all()
        assert retry(session, ids, site.settings) == []


def test_upkeep_deletes_only_where_the_site_lets_it(
    site: Site, engine: Engine, sessions: Sessions, broker_url: str
) -> None:
    study = site.study()
    celery = make_celery(broker_url)
    assert Upkeep(engine, sessions, celery, site.settings).retain() == 0
    assert site.files(study) == 4
    on = site.settings.model_copy(update={"retain_by_itself": True})
    assert Upkeep(engine, sessions, celery, on).retain() == 2
    assert site.files(study) == 0
    celery.close()
