"""The C-STORE handler: make an object safe, register it, and tell its sender the truth."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

from pydicom.dataset import Dataset
from pynetdicom import evt
from sqlalchemy.orm import Session, sessionmaker

from common import metrics
from common.archive import Archive
from common.database import storage_errors
from common.errors import (
    ClassMismatchError,
    ConflictingInstanceError,
    InvalidUidError,
    MalformedInstanceError,
    SenderError,
    StorageUnavailableError,
)
from common.logs import get_logger
from common.settings import Settings
from common.states import SetAsideKind
from dicom_listener import statements
from dicom_listener.attributes import read_attributes, read_received_header
from dicom_listener.clashes import Clash, Known, Received, kept_aside, set_aside
from dicom_listener.connections import Acceptor
from dicom_listener.ledger import Connection
from dicom_listener.prepared import ask
from dicom_listener.reception import Reception
from dicom_listener.registrar import Registrar
from dicom_listener.routing import route
from dicom_listener.statuses import ECHO_SUCCESS, Answer, StoreStatus

_STATUSES: dict[type[SenderError], StoreStatus] = {
    InvalidUidError: StoreStatus.INVALID_UID,
    ClassMismatchError: StoreStatus.CLASS_MISMATCH,
    MalformedInstanceError: StoreStatus.CANNOT_UNDERSTAND,
    ConflictingInstanceError: StoreStatus.CONFLICT,
}
# Found once: each is touched by every object.
_RECEIVED = {
    f"instance_{outcome}": metrics.RECEIVED.labels(outcome)
    for outcome in ("stored", "repeated", "revised", "restored")
}
_RECEIVED_QUEUED = metrics.HOP_SECONDS.labels("received_queued")

log = get_logger()


def _count_refused(answer: Answer, reason: str) -> None:
    metrics.REFUSED.labels(f"0x{answer.status:04X}", reason).inc()


class Receiver:
    """Handle C-STORE and C-ECHO of all associations."""

    def __init__(
        self,
        *,
        archive: Archive,
        registrar: Registrar,
        sessions: sessionmaker[Session],
        settings: Settings,
        same_pixels: Callable[[Path, Path], bool],
        is_pressed: Callable[[str, str], bool],
        ring: Callable[[int], None],
    ) -> None:
        """Take what the handler works with.

        Args:
            same_pixels: Says whether two files show the same pixels.
            is_pressed: Says of an AE title and address that its objects are to come again later.
            ring: Tells the worker of an analysis; must not wait.
        """
        self._archive = archive
        self._registrar = registrar
        self._sessions = sessions
        self._settings = settings
        self._same_pixels = same_pixels
        self._is_pressed = is_pressed
        self._ring = ring

    def handle_echo(self, event: evt.Event) -> int:
        """Answer a C-ECHO."""
        log.debug("echo_answered", source_ae_title=str(event.assoc.requestor.ae_title))
        return ECHO_SUCCESS

    def handle_store(self, event: evt.Event) -> int | Dataset:
        """Answer a C-STORE that came by pynetdicom's path."""
        association = cast(Acceptor, event.assoc)
        reception = cast(Reception | None, event.request._dataset_file)
        if reception is None:
            answer = Answer(StoreStatus.CANNOT_UNDERSTAND, "no data set")
            _count_refused(answer, "MalformedInstanceError")
            return answer.for_pynetdicom()
        try:
            return self.store(reception, str(association.requestor.address)).for_pynetdicom()
        finally:
            association.provider.done_with(reception)

    def store(self, reception: Reception, address: str) -> Answer:
        """Answer Success only once the object is synced under its final name and committed."""
        logged = log.bind(
            sop_instance_uid=reception.announced.sop_instance_uid[:64],
            source_ae_title=reception.announced.source_ae_title,
            source_address=address,
        )
        if self._is_pressed(reception.announced.source_ae_title, address):
            answer = Answer(StoreStatus.OUT_OF_RESOURCES, "too much work waits; send again later")
            _count_refused(answer, "queue_age")
            logged.warning("instance_refused", reason=answer.comment, status="0xA700")
            return answer
        try:
            what = self.accept(reception, address)
        except SenderError as error:
            answer, reason = Answer(_STATUSES[type(error)], str(error)), metrics.reason_of(error)
        except StorageUnavailableError as error:  # disk full, database away: may be sent again
            logged.error("instance_not_stored", reason=str(error))
            answer = Answer(
                StoreStatus.OUT_OF_RESOURCES, "out of disk or database; send again later"
            )
            _count_refused(answer, "archive" if str(error).startswith("archive") else "database")
            return answer
        except Exception:  # the boundary: a sender must get a status
            logged.exception("instance_not_stored")
            answer = Answer(StoreStatus.PROCESSING_FAILURE, "defect of the listener; see its log")
            _count_refused(answer, "defect")
            return answer
        else:
            logged.info(what)
            _RECEIVED[what].inc()
            metrics.RECEIVED_BYTES.inc(reception.size_bytes)
            _RECEIVED_QUEUED.observe(time.monotonic() - reception.began_s)
            return Answer(StoreStatus.SUCCESS)
        _count_refused(answer, reason)
        logged.warning("instance_refused", reason=answer.comment, status=f"0x{answer.status:04X}")
        return answer

    def accept(self, reception: Reception, address: str) -> str:
        """Make a complete object safe and register it. Returns the event to log.

        Raises:
            MalformedInstanceError: the data set cannot be understood.
            InvalidUidError: it has a UID that is none.
            ClassMismatchError: it is not what was announced.
            ConflictingInstanceError: it contradicts what is stored, and was set aside.
            StorageUnavailableError: disk or database refused; nothing was stored.
        """
        announced = reception.announced
        sha256 = reception.finish()
        try:
            header = read_received_header(
                reception.path, announced, bytes(reception.head), reception.size_bytes
            )
        except OSError as error:
            raise StorageUnavailableError(f"archive: {error.strerror}") from error
        attributes = read_attributes(header, announced, self._settings.zone)
        # Before anything is said of it: bytes, name and folder are on the disk.
        reception.sync()
        reception.is_placed = self._archive.place(reception.name, sha256)
        received = Received(
            attributes=attributes,
            pipeline=route(attributes.sop_class_uid, header),
            transfer_syntax_uid=announced.transfer_syntax_uid,
            path=self._archive.object_name(sha256),
            size_bytes=reception.file_bytes,
            sha256=sha256,
            source_ae_title=announced.source_ae_title,
            source_address=address,
        )
        found = self._registrar.register(received, partial(self._restore, received, reception))
        if isinstance(found, Clash):
            with storage_errors(), self._sessions() as session:
                return self._keep_aside(session, received, found)
        if found is Known.REPEAT:
            return "instance_repeated"
        if found is Known.DELETED:
            return "instance_restored"
        if found.queued_analysis_id is not None:
            self._ring(found.queued_analysis_id)
        return "instance_stored"

    def _restore(self, received: Received, reception: Reception, connection: Connection) -> None:
        """Keep an object again that retention had deleted, under the row's lock.

        Raises:
            StorageUnavailableError: its file was removed in this very instant; sent again, it is
                taken.
        """
        values = {"sop_instance_uid": received.attributes.sop_instance_uid}
        (locked,) = ask(connection, (statements.LOCKED_DELETED, values))
        if not locked:
            return  # another sender was faster
        if not self._archive.holds(received.sha256):
            if not reception.path.exists():
                raise StorageUnavailableError("archive: the object was being deleted")
            reception.is_placed = self._archive.store(reception.path, received.sha256)
        ask(connection, (statements.RESTORED, values))

    def _keep_aside(self, session: Session, received: Received, clash: Clash) -> str:
        """Record an object that contradicts the ledger; only equal pixels are no conflict."""
        kind = kept_aside(session, received) or clash.kind
        if kind is None:
            session.rollback()  # the comparison takes a while: hold no connection for it
            first = self._archive.path(clash.other_path or "")
            equal = self._same_pixels(first, self._archive.path(received.path))
            kind = SetAsideKind.REVISION if equal else SetAsideKind.PIXELS_DIFFER
        set_aside(session, received, kind)
        session.commit()
        if kind is SetAsideKind.REVISION:
            return "instance_revised"
        raise ConflictingInstanceError(f"kept aside: {kind.value.replace('_', ' ')}")
