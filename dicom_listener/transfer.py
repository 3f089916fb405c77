"""The direct path of C-STORE: from the socket to disk and back, past pynetdicom's machinery.

pynetdicom negotiates, releases, aborts and serves every other request. Once an association
stands, its reading thread looks at what comes next: the command of a C-STORE is served here, to
its response; anything else is left in the buffer for pynetdicom. Per object of 1 MB that saves
most of the CPU: no primitive, no queue between two threads, no polling while data flow.
"""

import time
from collections.abc import Callable
from typing import cast

from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider

from common.logs import get_logger
from dicom_listener.buffered_socket import TURN_S, BufferedSocket, ClosedError
from dicom_listener.reception import Announced, Reception
from dicom_listener.statuses import Answer
from dicom_listener.wire import (
    IS_LAST,
    OF_COMMAND,
    P_DATA_TF,
    PDU_HEADER,
    PDV_HEADER,
    StoreRequest,
    read_store_request,
    store_response,
)

_DATA_TRANSFER = "Sta6"  # PS3.8 table 9-10: association established and ready for data transfer
_DROP_BYTES = 1 << 17
_LARGE_BYTES = 1 << 17
_MAX_COMMAND_BYTES = 1024  # a C-STORE request holds some 200

log = get_logger()


class BrokenProtocolError(Exception):
    """What came is no continuation of the object under way: the association is aborted."""


class LeftError(Exception):
    """The sender released or aborted in the middle of an object; pynetdicom reads how."""


class TransferProvider(DULServiceProvider):
    """pynetdicom's upper layer with the direct path in its reading thread."""

    def __init__(
        self,
        association: Association,
        *,
        receive: Callable[[Announced], Reception],
        store: Callable[[Reception, str], Answer],
        is_between_messages: Callable[[], bool],
        max_pdu_bytes: int,
        pdu_deadline_s: float,
    ) -> None:
        """Take the association and what serves its objects.

        Args:
            receive: Starts a file for an object.
            store: Makes a complete object safe and says what its sender is told.
            is_between_messages: Says that pynetdicom is not in the middle of a message.
            max_pdu_bytes: The longest P-DATA-TF that is read; nothing of it is held.
            pdu_deadline_s: How long one may take to arrive, however steadily it drips.
        """
        super().__init__(association)
        self._receive = receive
        self._store = store
        self._is_between_messages = is_between_messages
        self._max_pdu_bytes = max_pdu_bytes
        self._pdu_deadline_s = pdu_deadline_s
        self._is_broken = False
        self.is_storing = False
        # pynetdicom sets these on the provider that it makes itself.
        self.artim_timer.timeout = association.acse_timeout
        self._idle_timer.timeout = association.network_timeout

    def _is_transport_event(self) -> bool:
        """Serve what the direct path can; then look at the connection as pynetdicom does."""
        try:
            if self._is_broken:
                return self._drop()
            if self.state_machine.current_state == _DATA_TRANSFER and self.assoc.is_established:
                return self._serve_all() or super()._is_transport_event()
        except ClosedError as error:
            if self.is_storing:
                log.warning("object_cut_off", reason=str(error))
            self.event_queue.put("Evt17")  # transport connection closed
            return True
        except LeftError:
            log.info("object_left")
        except BrokenProtocolError as error:
            log.warning("protocol_broken", reason=str(error))
            return self._break()
        except Exception:  # the boundary: this thread must end its association in good order
            log.exception("direct_path_failed")
            return self._break()
        finally:
            self.is_storing = False
        return super()._is_transport_event()

    def _break(self) -> bool:
        """Abort: what follows on the connection cannot be told apart any more."""
        self._is_broken = True
        self.event_queue.put("Evt19")  # unrecognised or invalid PDU
        return True

    def _drop(self) -> bool:
        """Read past what a broken sender still sends, until it hangs up or its time is over."""
        connection = cast(BufferedSocket, self.socket)
        if not connection.ready:
            return False
        connection.read_some(_DROP_BYTES)
        return True

    def _serve_all(self) -> bool:
        """Serve one object after the other while they come. False if there was none."""
        connection = cast(BufferedSocket, self.socket)
        served = False
        # pynetdicom's other thread would ask a thousand times a second whether there is work.
        self.assoc._reactor_checkpoint.clear()
        try:
            # After a turn without data, pynetdicom's own loop waits for more.
            while self._may_go_on() and connection.wait(TURN_S if served else 0.0):
                if not self._serve_one(connection):
                    break
                served = True
                self._idle_timer.restart()
        finally:
            connection.deadline = None
            if served or self.is_storing:
                self._idle_timer.restart()  # before the other thread looks at it
            self.assoc._reactor_checkpoint.set()
        return served

    def _may_go_on(self) -> bool:
        return (
            not self._kill_thread
            and self.to_provider_queue.empty()
            and self.event_queue.empty()
            and self._is_between_messages()
        )

    def _serve_one(self, connection: BufferedSocket) -> bool:
        """Serve the object whose command comes next. False, and nothing read, if it is no C-STORE.

        Raises:
            ClosedError: the connection ended or fell silent within the object.
            LeftError: the sender released or aborted within it.
            BrokenProtocolError: the object is not continued as it must be.
        """
        found = self._peek_store_request(connection)
        if found is None:
            return False
        context_id, request, end = found
        context = self.assoc._accepted_cx.get(context_id)
        if context is None:
            return False  # pynetdicom aborts
        self.is_storing = True
        connection.skip(end)
        announced = Announced(
            sop_class_uid=request.sop_class_uid,
            sop_instance_uid=request.sop_instance_uid,
            context_class_uid=str(context.abstract_syntax),
            syntax=str(context.transfer_syntax[0]),
            ae=str(self.assoc.requestor.ae_title).strip(),
        )
        reception = self._receive(announced)
        try:
            self._read_data_set(connection, context_id, reception)
            answer = self._store(reception, str(self.assoc.requestor.address))
        finally:
            reception.discard()
        connection.send(
            store_response(
                context_id,
                request,
                announced.context_class_uid,
                int(answer.status),
                answer.error_comment,
            )
        )
        self.is_storing = False
        return True

    def _peek_store_request(
        self, connection: BufferedSocket
    ) -> tuple[int, StoreRequest, int] | None:
        """Look at the next PDU: context, command and length if it is a C-STORE's whole command."""
        pdu_type, pdu_length = PDU_HEADER.unpack(connection.peek(PDU_HEADER.size))
        if pdu_type != P_DATA_TF or not PDV_HEADER.size <= pdu_length <= _MAX_COMMAND_BYTES:
            return None
        head = connection.peek(PDU_HEADER.size + PDV_HEADER.size)
        length, context_id, control = PDV_HEADER.unpack_from(head, PDU_HEADER.size)
        if control != OF_COMMAND | IS_LAST or length + 4 != pdu_length or length < 2:
            return None  # a command in parts, or its data set in the same PDU
        end = PDU_HEADER.size + pdu_length
        request = read_store_request(bytes(connection.peek(end)[len(head) :]))
        return None if request is None else (context_id, request, end)

    def _read_data_set(
        self, connection: BufferedSocket, context_id: int, reception: Reception
    ) -> None:
        """Write the fragments of one data set, from as many PDUs as it takes."""
        is_complete = False
        while not is_complete:
            connection.deadline = time.monotonic() + self._pdu_deadline_s
            pdu_type, left = PDU_HEADER.unpack(connection.read(PDU_HEADER.size))
            if pdu_type != P_DATA_TF:
                connection.unread(PDU_HEADER.pack(pdu_type, left))
                raise LeftError
            if not 0 < left <= self._max_pdu_bytes:
                raise BrokenProtocolError(f"a PDU of {left} bytes")
            if reception.size_bytes > _LARGE_BYTES:
                connection.widen()
            while left:
                if is_complete or left < PDV_HEADER.size:
                    raise BrokenProtocolError("more in a PDU than its data set")
                length, of_context, control = PDV_HEADER.unpack(connection.read(PDV_HEADER.size))
                fragment = length - 2
                if of_context != context_id or control & OF_COMMAND or fragment < 0:
                    raise BrokenProtocolError("another message within a data set")
                left -= PDV_HEADER.size + fragment
                if left < 0:
                    raise BrokenProtocolError("a fragment longer than its PDU")
                while fragment:
                    some = connection.read_some(fragment)
                    reception.write(some)
                    fragment -= len(some)
                is_complete = bool(control & IS_LAST)
