"""Delete the files of what has been read, by age or for room, and never anything else.

The row says so first: an object is marked deleted and that is committed, then its files go, then
the row says that they are gone. Whoever crashes in between leaves a marked row, and the next run
removes its files. A row that points to a missing file without saying so never exists.

Order of locks: the study's worklist item, under which it is looked at again whether the study is
read and nothing of it in work (whoever changes that takes the item too), then its instances.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Row, and_, exists, func, or_, select, update
from sqlalchemy.orm import Session, sessionmaker

from common.archive import Archive, sync_folder
from common.commitment_tables import CommitmentItem, bar_commitments
from common.database import storage_errors
from common.errors import StorageUnavailableError
from common.lifecycle import NOW
from common.reading import audit
from common.settings import Settings
from common.states import AnalysisState, ReadingState
from common.tables import Analysis, Instance, Reading, Series, SetAside, Study, WorklistItem

STUDIES_AT_A_TIME = 200
INSTANCES_AT_A_TIME = 500  # also what one audit event names


@dataclass(frozen=True)
class Summary:
    """What was deleted, or would be."""

    studies: int = 0
    instances: int = 0
    size_bytes: int = 0
    unconfirmed: int = 0  # kept: we committed to them, and the site's archive has not

    def plus(self, other: "Summary") -> "Summary":
        """Add up."""
        return Summary(
            self.studies + other.studies,
            self.instances + other.instances,
            self.size_bytes + other.size_bytes,
            self.unconfirmed + other.unconfirmed,
        )


Progress = Callable[[Summary], None]


class Retention:
    """The site's rule, over one archive."""

    def __init__(
        self, sessions: sessionmaker[Session], settings: Settings, *, actor: str = "retention"
    ) -> None:
        self._sessions = sessions
        self._archive = Archive(settings.archive_path)
        self._actor = actor
        self._days = settings.retain_days
        self._free_bytes = settings.retain_free_bytes

    def run(
        self,
        *,
        delete: bool,
        progress: Progress = lambda _: None,
        studies: int | None = None,
    ) -> Summary:
        """Go through what was read, the longest ago first, as far as the rule says.

        Args:
            delete: False only counts.
            studies: How many to delete from at most; None: all that the rule names.
        """
        if delete:
            self.finish_deletions()
        total, after = Summary(), None
        while batch := self._read_studies(after):
            for row in batch:
                after = (row.read_at, row.study_id)
                if not self._is_old(row.age) and not self._needs_room(total, delete):
                    if self._is_old(row.read_age):
                        continue  # something of it came back since it was read
                    return total
                total = total.plus(self._study(row.study_id, delete))
                progress(total)
                if studies is not None and total.studies >= studies:
                    return total
        return total

    def finish_deletions(self) -> int:
        """Remove the files of objects that are marked deleted, unless we committed to one since."""
        removed = 0
        while True:
            with storage_errors(), self._sessions.begin() as session:
                bar_commitments(session)
                marked = session.execute(
                    select(Instance.id, Instance.path, Instance.sha256)
                    .where(Instance.deleted_at.is_not(None), Instance.file_removed_at.is_(None))
                    .order_by(Instance.id)
                    .limit(INSTANCES_AT_A_TIME)
                    .with_for_update(key_share=True, skip_locked=True)
                ).all()
                if not marked:
                    return removed
                ids = [row.id for row in marked]
                spared = set(
                    session.scalars(select(Instance.id).where(Instance.id.in_(ids), _held()))
                )
                _set(session, spared, deleted_at=None)
                gone = [row for row in marked if row.id not in spared]
                self._remove_files(session, gone)
                _set(session, {row.id for row in gone}, file_removed_at=NOW)
                removed += len(gone)

    def confirm(self, sop_instance_uids: Iterable[str]) -> int:
        """Note that the site's own archive has committed to these objects. Returns how many."""
        confirmed, uids = 0, sorted(set(sop_instance_uids))
        for start in range(0, len(uids), INSTANCES_AT_A_TIME):
            chunk = uids[start : start + INSTANCES_AT_A_TIME]
            with storage_errors(), self._sessions.begin() as session:
                changed = session.scalars(
                    update(Instance)
                    .where(
                        Instance.sop_instance_uid.in_(chunk),
                        Instance.archive_confirmed_at.is_(None),
                    )
                    .values(archive_confirmed_at=NOW)
                    .returning(Instance.id)
                ).all()
                confirmed += len(changed)
        with storage_errors(), self._sessions.begin() as session:
            audit(session, self._actor, "commitments_confirmed", objects=confirmed)
        return confirmed

    def _read_studies(self, after: tuple[datetime, int] | None) -> Sequence[Row]:
        quiet_since = func.greatest(Reading.read_at, Study.last_received_at)
        kept = (
            select(Instance.id)
            .join(Series, Series.id == Instance.series_id)
            .where(Series.study_id == Reading.study_id, Instance.deleted_at.is_(None))
            .correlate(Reading)
        )
        wanted = (
            select(
                Reading.study_id,
                Reading.read_at,
                (NOW - Reading.read_at).label("read_age"),
                (NOW - quiet_since).label("age"),
            )
            .join(Study, Study.id == Reading.study_id)
            .join(WorklistItem, WorklistItem.study_id == Reading.study_id)
            .where(_may_go(), exists(kept))
            .order_by(Reading.read_at, Reading.study_id)
            .limit(STUDIES_AT_A_TIME)
        )
        if after is not None:
            earlier = and_(Reading.read_at == after[0], Reading.study_id > after[1])
            wanted = wanted.where(or_(Reading.read_at > after[0], earlier))
        with storage_errors(), self._sessions() as session:
            return session.execute(wanted).all()

    def _is_old(self, age: timedelta) -> bool:
        return self._days > 0 and age > timedelta(days=self._days)

    def _needs_room(self, total: Summary, delete: bool) -> bool:
        free = self._archive.free_bytes() + (0 if delete else total.size_bytes)
        return free < self._free_bytes

    def _study(self, study_id: int, delete: bool) -> Summary:
        """Mark what may go of one study and remove its files; or only count it."""
        wanted = select(Instance.id, Instance.sop_instance_uid, Instance.size_bytes).where(
            _kept_of(study_id), ~_held()
        )
        with storage_errors(), self._sessions.begin() as session:
            if delete:
                if not _still_may_go(session, study_id):
                    return Summary()
                bar_commitments(session)
                wanted = wanted.order_by(Instance.id).with_for_update(key_share=True)
            unconfirmed = session.execute(
                select(func.count()).select_from(Instance).where(_kept_of(study_id), _held())
            ).scalar_one()
            rows = session.execute(wanted).all()
            if delete and rows:
                self._mark(session, study_id, rows)
        if delete and rows:
            self.finish_deletions()
        return Summary(int(bool(rows)), len(rows), sum(row.size_bytes for row in rows), unconfirmed)

    def _mark(self, session: Session, study_id: int, rows: Sequence[Row]) -> None:
        _set(session, {row.id for row in rows}, deleted_at=NOW)
        uid = session.execute(
            select(Study.study_instance_uid).where(Study.id == study_id)
        ).scalar_one()
        for start in range(0, len(rows), INSTANCES_AT_A_TIME):
            chunk = [row.sop_instance_uid for row in rows[start : start + INSTANCES_AT_A_TIME]]
            audit(session, self._actor, "instances_deleted", uid, sop_instance_uids=chunk)

    def _remove_files(self, session: Session, rows: Sequence[Row]) -> None:
        """Remove objects and their renditions; content that something else keeps stays.

        Raises:
            StorageUnavailableError: the disk refused; the rows stay marked.
        """
        kept = set(
            session.scalars(
                select(SetAside.path).where(SetAside.path.in_([row.path for row in rows]))
            )
        )
        folders = set()
        try:
            for row in rows:
                if row.path in kept:
                    continue
                for name in (row.path, self._archive.rendition_name(row.sha256)):
                    path = self._archive.path(name)
                    path.unlink(missing_ok=True)
                    folders.add(path.parent)
            for folder in folders:
                if folder.is_dir():
                    sync_folder(folder)
        except OSError as error:
            raise StorageUnavailableError(f"archive: {error.strerror}") from error


def _may_go() -> ColumnElement[bool]:
    """Read, nothing new since, nothing in work."""
    in_work = exists().where(
        Analysis.study_id == Reading.study_id,
        Analysis.state.in_((AnalysisState.QUEUED, AnalysisState.RUNNING)),
    )
    return and_(
        Reading.state == ReadingState.READ,
        ~WorklistItem.listed,
        ~WorklistItem.new_image_since_read,
        WorklistItem.final,
        ~in_work,
    )


def _still_may_go(session: Session, study_id: int) -> bool:
    session.execute(
        select(WorklistItem.study_id).where(WorklistItem.study_id == study_id).with_for_update()
    )
    return (
        session.execute(
            select(Reading.study_id)
            .join(WorklistItem, WorklistItem.study_id == Reading.study_id)
            .where(Reading.study_id == study_id, _may_go())
        ).one_or_none()
        is not None
    )


def _kept_of(study_id: int) -> ColumnElement[bool]:
    series = select(Series.id).where(Series.study_id == study_id)
    return and_(Instance.deleted_at.is_(None), Instance.series_id.in_(series))


def _held() -> ColumnElement[bool]:
    """We told a peer that it is safe here, and the site's archive has not said so itself."""
    committed = exists().where(
        CommitmentItem.sop_instance_uid == Instance.sop_instance_uid,
        CommitmentItem.succeeded.is_(True),
    )
    return and_(Instance.archive_confirmed_at.is_(None), committed)


def _set(session: Session, ids: set[int], **values: object) -> None:
    if ids:
        session.execute(
            update(Instance)
            .where(Instance.id.in_(ids))
            .values(**values)
            .execution_options(synchronize_session=False)
        )
