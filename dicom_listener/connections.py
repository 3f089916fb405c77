"""TCP connections and their associations: what pynetdicom's server does, with bounds."""

import socket
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from socketserver import BaseRequestHandler, TCPServer
from threading import Thread
from typing import Any, cast

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.transport import AssociationServer, RequestHandler

from common import metrics
from common.errors import ConfigurationError
from common.logs import get_logger
from common.peers import Peer
from common.settings import Settings
from dicom_listener.buffered_socket import BufferedSocket
from dicom_listener.contexts import peer_contexts, supported_contexts
from dicom_listener.event_reports import ReportingProvider
from dicom_listener.peers import LOOPBACK, Admission, Caller, Certificate
from dicom_listener.reception import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    Announced,
    Reception,
)
from dicom_listener.state_machine import ForgivingStateMachine
from dicom_listener.statuses import Answer
from dicom_listener.tls import HANDSHAKE_S, Handshakes, certificate_of
from dicom_listener.transfer import TransferProvider

# A request to associate lists up to 128 classes with their syntaxes: this is ten times the largest.
_MAX_NEGOTIATION_BYTES = 1 << 20
_MAX_COMMITMENT_BYTES = 2 << 20  # 10,000 objects of two UIDs each
_ACCEPT_POLL_S = 0.2
_NEGOTIATION_POLL_S = 0.0002
_TRANSFER_POLL_S = 0.001
_PATIENCE_S = 0.2  # with a silent connection, when others want its place
_LAST_OBJECT_S = 2.0
_STUCK_S = 15.0

log = get_logger()


@dataclass(frozen=True)
class Reach:
    """What an association may reach of the listener.

    ``direct`` says whether C-STORE takes the direct path or all of pynetdicom's.
    """

    settings: Settings
    admission: Admission
    receive: Callable[[Announced], Reception]
    store: Callable[[Reception, str], Answer]
    direct: bool = True


class BoundedSocket(BufferedSocket):
    """A socket that never allocates without bound, and tells when its peer has gone."""

    def __init__(self, association: "Acceptor", client: socket.socket, max_bytes: int) -> None:
        super().__init__(association, client)
        self._max_bytes = max_bytes

    def recv(self, nr_bytes: int) -> bytearray:
        """Read exactly so many bytes, or fewer if the peer has gone.

        Raises:
            OSError: nothing came for the time allowed, or the PDU is larger than any should be.
        """
        acceptor = cast(Acceptor, self.assoc)
        if nr_bytes > self._max_bytes:
            acceptor.peer_left()
            raise OSError(f"a PDU of {nr_bytes} bytes, of at most {self._max_bytes}")
        # The direct path has a deadline of its own; what pynetdicom reads may not drip for ever.
        before, self.deadline = self.deadline, self.deadline or acceptor.reading_deadline()
        try:
            data = super().recv(nr_bytes)
        except OSError:
            acceptor.peer_left()
            raise
        finally:
            self.deadline = before
        if len(data) < nr_bytes:
            acceptor.peer_left()
        return data


class Acceptor(Association):
    """One association with a sender; whatever it leaves half received is removed at its end."""

    def __init__(self, ae: AE, reach: Reach) -> None:
        super().__init__(ae, "acceptor")
        self._reach = reach
        self._began_at_s = time.monotonic()
        self.certificate: Certificate | None = None
        self.peer: Peer = LOOPBACK  # until its request says who it is
        self.provider = ReportingProvider(self, self._receive_in_turn)
        self.dimse = self.provider
        if reach.direct:
            self.dul = TransferProvider(
                self,
                receive=self._receive_in_turn,
                store=reach.store,
                is_between_messages=lambda: not self.provider.is_receiving,
                max_pdu_bytes=max(reach.settings.dicom_max_pdu_bytes, _MAX_NEGOTIATION_BYTES),
                pdu_deadline_s=2 * reach.settings.dicom_dimse_timeout_s,
            )
        self.dul.state_machine = ForgivingStateMachine(self.dul)
        self.dul.daemon = True
        # pynetdicom polls; until the association stands, its sender waits for each turn.
        self.dul._run_loop_delay = _NEGOTIATION_POLL_S
        self.bind(evt.EVT_ESTABLISHED, _poll_at_leisure)

    def serve_as(self, peer: Peer) -> None:
        """Offer what the rule for this sender allows, no faster than it allows."""
        self.peer = peer
        self.acceptor.supported_contexts = peer_contexts(
            store=peer.store, storage_commitment=peer.storage_commitment
        )
        if peer.storage_commitment:
            self.provider.max_message_bytes = _MAX_COMMITMENT_BYTES
        if peer.bytes_per_s is not None:
            pace = self._reach.admission.pace_of(peer)
            cast(BufferedSocket, self.dul.socket).pace = lambda count: pace.take(count, self._ends)

    def _receive_in_turn(self, announced: Announced) -> Reception:
        if self.peer.objects_per_s is not None:
            self._reach.admission.pace_of(self.peer).begin_object(self._ends)
        return self._reach.receive(announced)

    def _ends(self) -> bool:
        return self._kill or self._reach.admission.is_stopping

    def run_reactor(self) -> None:
        """Serve the sender until it releases, aborts, falls silent or vanishes."""
        try:
            super().run_reactor()
        finally:
            self.provider.discard_all()
            self._reach.admission.release(self)
            if not self.dul.is_alive():
                cast(BufferedSocket, self.dul.socket).let_go()

    def _run_reactor(self) -> None:
        """Serve until the end; the reading thread may have an object to end and an answer to send.

        Only then is the connection closed and the place given back.
        """
        super()._run_reactor()
        self.dul.join(_LAST_OBJECT_S)

    @property
    def is_busy(self) -> bool:
        """Say whether an object is on its way from the wire to its answer."""
        storing = isinstance(self.dul, TransferProvider) and self.dul.is_storing
        in_handler = self._is_paused and self._reactor_checkpoint.is_set()
        return storing or self.provider.is_receiving or in_handler

    def reading_deadline(self) -> float:
        """Give the time by which what comes now must be complete: the request, or one PDU."""
        settings = self._reach.settings
        if self.requestor.primitive is None:
            return self._began_at_s + settings.dicom_acse_timeout_s
        return time.monotonic() + 2 * settings.dicom_dimse_timeout_s

    @property
    def idled_s(self) -> float:
        """Say for how long the connection stands without having asked for an association."""
        return time.monotonic() - self._began_at_s if self.requestor.primitive is None else 0.0

    def hang_up(self) -> None:
        """Close the connection under whoever reads from it; any thread may."""
        connection = cast(BoundedSocket | None, self.dul.socket)
        if connection is not None and connection.socket is not None:
            with suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)

    def peer_left(self) -> None:
        """End at once if the peer never asked for anything, as health checks do not."""
        if self.requestor.primitive is None:
            self.dul.to_user_queue.put(cast(Any, None))


def _poll_at_leisure(event: evt.Event) -> None:
    event.assoc.dul._run_loop_delay = _TRANSFER_POLL_S


class AcceptorHandler(RequestHandler):
    """Make an association of a TCP connection."""

    server: "AcceptorServer"  # pyright: ignore[reportIncompatibleVariableOverride]

    def _create_association(self) -> Acceptor:
        reach = self.server.reach
        settings = reach.settings
        association = Acceptor(self.ae, reach)
        association._server = self.server
        association.name = "AcceptorThread"  # pynetdicom finds its acceptors by this name
        max_bytes = max(settings.dicom_max_pdu_bytes, _MAX_NEGOTIATION_BYTES)
        client = cast(socket.socket, self.request)
        association.set_socket(BoundedSocket(association, client, max_bytes))
        association.certificate = certificate_of(client)
        acceptor = association.acceptor
        acceptor.maximum_length = self.ae.maximum_pdu_size
        acceptor.ae_title = self.server.ae_title
        acceptor.address_info = self.local
        acceptor.implementation_class_uid = self.ae.implementation_class_uid
        acceptor.implementation_version_name = self.ae.implementation_version_name
        acceptor.supported_contexts = deepcopy(self.server.contexts)  # see SharedContexts
        association.requestor.address_info = self.remote
        for event, handler in self.server.event_handlers:
            association.bind(event, handler)
        return association


class AcceptorServer(AssociationServer):
    """Accept connections and make associations of them, one thread and one socket each."""

    request_queue_size = 128

    def __init__(
        self,
        reach: Reach,
        handlers: Sequence[tuple[Any, Callable[..., Any]]] = (),
        *,
        port: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Bind and listen.

        Args:
            reach: What its associations may reach.
            handlers: pynetdicom's events and who handles them.
            port: Another than the settings name.
            tls: What each connection's handshake is held to; None: no TLS.

        Raises:
            ConfigurationError: the address is taken or not ours.
        """
        self.reach = reach
        self.event_handlers = [(evt.EVT_REQUESTED, self._negotiate), *handlers]
        settings = reach.settings
        # Associations are the admission's to count; this bounds connections that say nothing.
        self._max_connections = 2 * settings.dicom_max_associations + 64
        self.handshakes = tls and Handshakes(
            tls,
            at_most=self._max_connections,
            deadline_s=min(HANDSHAKE_S, settings.dicom_acse_timeout_s),
            then_timeout_s=settings.dicom_dimse_timeout_s,
        )
        address = (settings.dicom_host, port or settings.dicom_port)
        try:
            super().__init__(
                _application_entity(settings),
                address,
                settings.ae_title,
                supported_contexts(),
                request_handler=cast(Callable[..., BaseRequestHandler], AcceptorHandler),
            )
        except OSError as error:
            raise ConfigurationError(
                f"Cannot listen on {address[0]}:{address[1]} ({error.strerror}): "
                "change FIRSTREAD_DICOM_HOST or FIRSTREAD_DICOM_PORT, or stop what listens there"
            ) from error
        self._turned_at_s = time.monotonic()
        self._thread = Thread(
            target=self.serve_forever,
            kwargs={"poll_interval": _ACCEPT_POLL_S},
            name="accept",
            daemon=True,
        )

    def start(self) -> None:
        """Accept connections from now on, in a thread of its own."""
        self._thread.start()

    def service_actions(self) -> None:
        """Note that the loop that accepts goes round; pynetdicom clears dead associations away."""
        super().service_actions()
        self._turned_at_s = time.monotonic()

    def moves(self) -> bool:
        """Say whether connections are accepted."""
        return self._thread.is_alive() and time.monotonic() - self._turned_at_s < _STUCK_S

    @property
    def associations(self) -> list[Acceptor]:
        """The associations that live."""
        return [one for one in self.active_associations if isinstance(one, Acceptor)]

    def stop(self, grace_s: float) -> bool:
        """Accept nothing new, let the objects under way end, then end the associations.

        Returns:
            Whether all of them ended within the time.
        """
        self.reach.admission.stop()
        TCPServer.shutdown(self)
        self.server_close()
        self._thread.join()
        deadline = time.monotonic() + grace_s
        idle_in_a_row = 0  # an object may be between the wire and its handler
        while idle_in_a_row < 2 and time.monotonic() < deadline:
            busy = any(one.is_busy for one in self.associations)
            idle_in_a_row = 0 if busy else idle_in_a_row + 1
            time.sleep(0.05)
        for association in self.associations:
            Thread(target=association.abort, daemon=True).start()
        while self.associations and time.monotonic() < deadline + 2:
            time.sleep(0.05)
        return idle_in_a_row >= 2

    def server_bind(self) -> None:
        """Bind; where several processes are to listen, beside the others."""
        if self.reach.settings.dicom_processes > 1:
            listening = cast(socket.socket, self.socket)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ANN401 - theirs
        """Turn connections away, before they cost a thread, when far too many are open.

        But first the one that has said nothing for longest: silence must not keep senders out.
        """
        associations = self.associations
        if len(associations) < self._max_connections:
            return True
        most_silent = max(associations, key=lambda one: one.idled_s)
        if most_silent.idled_s > _PATIENCE_S:
            most_silent.hang_up()
            return True
        metrics.REJECTED.labels("too_many_connections").inc()
        log.warning("connection_refused", source_address=client_address[0], reason="too many")
        return False

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection without Nagle's delay, and with an end to waiting."""
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(self.reach.settings.dicom_dimse_timeout_s)
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - theirs
        """Make an association of the connection, where there is TLS after its handshake."""
        if self.handshakes is None:
            super().process_request(request, client_address)
        else:
            self.handshakes.begin(request, client_address, self.finish_request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - theirs
        """Log a connection that could not be served."""
        log.exception("connection_failed", source_address=client_address[0])

    def _negotiate(self, event: evt.Event) -> None:
        """Reject the request if it must be; else leave it to pynetdicom."""
        association = cast(Acceptor, event.assoc)
        request = cast(A_ASSOCIATE, association.requestor.primitive)
        association.requestor.ae_title = request.calling_ae_title
        caller = Caller(
            calling_ae_title=request.calling_ae_title,
            called_ae_title=request.called_ae_title,
            address=str(association.requestor.address),
            application_context=str(request.application_context_name),
            certificate=association.certificate,
        )
        admitted = self.reach.admission.admit(caller, association)
        if isinstance(admitted, Peer):
            association.serve_as(admitted)
            return
        reason = admitted.name.lower()
        metrics.REJECTED.labels(reason).inc()
        log.warning(
            "association_rejected",
            source_ae_title=caller.calling_ae_title,
            called_ae_title=caller.called_ae_title,
            source_address=caller.address,
            reason=reason,
        )
        association.acse.send_reject(*admitted.value)
        association.kill()


def _application_entity(settings: Settings) -> AE:
    entity = AE(ae_title=settings.ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.maximum_pdu_size = settings.dicom_max_pdu_bytes
    entity.maximum_associations = 1 << 20  # ours is the admission's count
    entity.acse_timeout = settings.dicom_acse_timeout_s
    entity.dimse_timeout = settings.dicom_dimse_timeout_s
    entity.network_timeout = settings.dicom_network_timeout_s
    return entity
