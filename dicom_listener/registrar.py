"""Who registers objects: any thread asks; first objects of studies are written together."""

from collections.abc import Callable, Sequence
from functools import partial

from sqlalchemy import Engine

from common.errors import StorageUnavailableError
from common.logs import get_logger
from common.settings import Settings
from dicom_listener.clashes import Clash, Known, Received
from dicom_listener.group_commit import GroupCommit
from dicom_listener.ledger import Connection, Ledger, Patience
from dicom_listener.prepared import Row
from dicom_listener.recent import Recent
from dicom_listener.registering import (
    Registered,
    Values,
    begin_studies,
    look_and_add,
    new_study,
    registered,
    values_of,
)

_MOST_TOGETHER = 16
# Whoever shares a commit is kept no longer by another's lock, nor by a server that says nothing;
# each object then waits by itself, as long as ever.
_SHARED = Patience(lock_ms=200, answer_s=5.0)

log = get_logger()


class Registrar:
    """Register objects from any thread, over connections of its own."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._ledger = Ledger(engine)
        self._shared = Ledger(engine, _SHARED)
        self._settings = settings
        self._recent = Recent()
        self._beginnings = GroupCommit(self._begin, _MOST_TOGETHER)

    def close(self) -> None:
        """Let go of the connections. Safe to repeat."""
        self._ledger.close()
        self._shared.close()

    def register(
        self, received: Received, restore: Callable[[Connection], None]
    ) -> Registered | Known | Clash:
        """Write the rows of one object and commit them. A clash writes nothing.

        Safe to repeat: the same object again is ``Known``, and changes nothing but what
        ``restore`` does.

        Args:
            received: The object, safe in the archive.
            restore: What to do, in the same transaction, about one that retention had deleted.

        Raises:
            StorageUnavailableError: the database is away, full or read-only, or too many senders
                register the same study at once.
        """
        values = values_of(received, self._settings)
        now = self._recent.now()
        if self._recent.is_first_of(values["study_instance_uid"]) and now is not None:
            begun = self._beginnings.do(new_study(values, now, self._settings))
            if begun is not None:
                self._recent.saw_clock(begun.now)
                return registered(begun.id, values)
        return self._ledger.write(partial(self._add, received, values, restore))

    def _begin(self, studies: Sequence[Values]) -> Sequence[Row | None]:
        try:
            return self._shared.write(partial(begin_studies, studies=studies))
        except StorageUnavailableError:
            pass
        except Exception:  # the boundary: it may be one object's fault
            log.exception("studies_not_begun", studies=len(studies))
        return [None] * len(studies)  # each finds out by itself, and how long to wait

    def _add(
        self,
        received: Received,
        values: Values,
        restore: Callable[[Connection], None],
        connection: Connection,
    ) -> Registered | Known | Clash:
        found = look_and_add(connection, received, values, self._settings, self._recent)
        if found is Known.DELETED:
            restore(connection)
            connection.commit()
        return found
