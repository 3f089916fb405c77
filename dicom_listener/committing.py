"""The threads that answer requests for storage commitment: rows in, reports out.

One thread a peer, so that one that is away holds up no other. Any listener may answer any request:
what a dead one held is taken up by another, or by itself when it is back.
"""

import queue
import ssl
import time
from threading import Event as Flag
from threading import Thread

from sqlalchemy.orm import Session, sessionmaker

from common import metrics
from common.archive import Archive
from common.commitment_tables import CommitmentItem, CommitmentRequest
from common.database import storage_errors
from common.errors import StorageUnavailableError
from common.logs import get_logger
from common.peers import Peer
from common.settings import Settings
from dicom_listener.commitment_checking import check_item
from dicom_listener.commitment_claim import LEASE_S, Claims, LostLeaseError
from dicom_listener.commitment_outcome import UndeliveredError, call_back, tell_here, write_report
from dicom_listener.connections import Acceptor
from dicom_listener.tls import client_context

_POLL_S = 1.0

log = get_logger()


class Committers:
    """Answer the requests of every peer that may ask."""

    def __init__(
        self, sessions: sessionmaker[Session], archive: Archive, settings: Settings
    ) -> None:
        """Take what the threads work with.

        Raises:
            ConfigurationError: a peer is to be called by TLS, whose files cannot be used.
        """
        peers = [peer for peer in settings.peers if peer.storage_commitment]
        tls = client_context(settings) if any(peer.call_back_tls for peer in peers) else None
        self._committers = {
            peer.ae_title: Committer(sessions, archive, settings, peer, tls) for peer in peers
        }

    def start(self) -> None:
        """Answer from now on, and what was asked before a restart."""
        for committer in self._committers.values():
            committer.start()

    def begin(self, request_id: int, association: Acceptor) -> None:
        """Answer this request next, on its association while that stands. Returns at once."""
        self._committers[association.peer.ae_title].begin(request_id, association)

    def stop(self) -> None:
        """End after the steps under way; what is not answered stays a row."""
        for committer in self._committers.values():
            committer.stop()


class Committer:
    """Check and answer the requests of one peer."""

    def __init__(
        self,
        sessions: sessionmaker[Session],
        archive: Archive,
        settings: Settings,
        peer: Peer,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._sessions = sessions
        self._archive = archive
        self._settings = settings
        self._peer = peer
        self._tls = tls if peer.call_back_tls else None
        self._claims = Claims(sessions, settings, peer.ae_title)
        self._begun: queue.SimpleQueue[tuple[int, Acceptor] | None] = queue.SimpleQueue()
        self._stopping = Flag()
        self._thread = Thread(target=self._run, name="committer", daemon=True)

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def begin(self, request_id: int, association: Acceptor) -> None:
        """Answer this request next. Returns at once."""
        self._begun.put((request_id, association))

    def stop(self) -> None:
        """End after the step under way."""
        self._stopping.set()
        self._begun.put(None)
        if self._thread.is_alive():
            self._thread.join(2)

    def _run(self) -> None:
        begun = None
        while not self._stopping.is_set():
            try:
                if begun is not None:
                    self._answer_next(*begun)
                while self._begun.empty() and self._answer_next():
                    pass
            except LostLeaseError:
                log.warning("commitment_lease_lost", peer=self._peer.ae_title)
            except StorageUnavailableError as error:
                log.error("commitment_waits", peer=self._peer.ae_title, reason=str(error))
                self._stopping.wait(_POLL_S)
            except Exception:  # the boundary: the row stays, its lease ends, it is tried again
                log.exception("commitment_failed", peer=self._peer.ae_title)
                self._stopping.wait(_POLL_S)
            try:
                begun = self._begun.get(timeout=_POLL_S)
            except queue.Empty:
                begun = None

    def _answer_next(self, request_id: int | None = None, asked_on: Acceptor | None = None) -> bool:
        """Claim, check and tell one request. False if there was none to claim."""
        if self._stopping.is_set():
            return False
        request = self._claims.claim(request_id)
        if request is None:
            return False
        logged = log.bind(request_id=request.id, peer=self._peer.ae_title)
        renewed = time.monotonic()
        while items := self._claims.unchecked(request):
            for item in items:
                if self._stopping.is_set():
                    return False
                with storage_errors():
                    check_item(self._sessions, self._archive, item)
                if time.monotonic() - renewed > LEASE_S / 4:
                    self._claims.renew(request)
                    renewed = time.monotonic()
        try:
            self._tell(request, self._claims.items(request), asked_on)
        except UndeliveredError as error:
            metrics.COMMITMENTS_UNTOLD.labels(str(error).partition(":")[0]).inc()
            keeps_on = self._claims.put_off(request, str(error))
            if not keeps_on:
                metrics.COMMITMENTS_ABANDONED.inc()
            event = "commitment_undelivered" if keeps_on else "commitment_abandoned"
            logged.warning(event, reason=str(error), failures=request.failures + 1)
        else:
            metrics.COMMITMENTS_TOLD.inc()
            self._claims.deliver(request)
            logged.info("commitment_delivered")
        return True

    def _tell(
        self, request: CommitmentRequest, items: list[CommitmentItem], asked_on: Acceptor | None
    ) -> None:
        settings = self._settings
        longest_s = 2 * (settings.dicom_acse_timeout_s + settings.dicom_dimse_timeout_s)
        self._claims.renew(request, LEASE_S + longest_s)
        if asked_on is not None and asked_on.is_established:
            report = write_report(request.transaction_uid, items)
            try:
                tell_here(report, asked_on, settings.dicom_dimse_timeout_s)
                return
            except UndeliveredError as error:
                log.info("commitment_not_told_there", request_id=request.id, reason=str(error))
        if self._peer.call_back is None:
            raise UndeliveredError("no address to call")
        report = write_report(request.transaction_uid, items)
        call_back(report, self._peer.call_back, settings, self._tls)
