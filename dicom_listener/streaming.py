"""The seam of the data path: C-STORE data sets go fragment by fragment from the wire to disk.

Everything that knows pynetdicom's insides on the way from a P-DATA to a C-STORE request is here.
"""

from collections.abc import Callable

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.pdu_primitives import P_DATA

from common.logs import get_logger
from dicom_listener.reception import Announced, Reception

log = get_logger()

MAX_COMMAND_BYTES = 1 << 16


class MessageRefusedError(Exception):
    """The peer breaks the protocol: the association is aborted."""


class StreamingProvider(DIMSEServiceProvider):
    """Receive messages as pynetdicom does, but give each C-STORE data set a file of its own.

    Memory is bounded: a command and any data set that is not a C-STORE's may hold 64 kB.
    """

    def __init__(self, association: Association, receive: Callable[[Announced], Reception]) -> None:
        super().__init__(association)
        self._receive = receive
        self._open: set[Reception] = set()
        self._in_memory_bytes = 0
        self._is_cut_off = False
        self.max_message_bytes = MAX_COMMAND_BYTES  # of what is no C-STORE

    @property
    def is_receiving(self) -> bool:
        """Say whether a message has begun and not yet been handed over."""
        return self.message is not None or not self.msg_queue.empty()

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Process one P-DATA; a peer that breaks the protocol or its bounds is cut off."""
        if self._is_cut_off:
            return
        try:
            self._receive_fragments(primitive)
        except Exception as error:  # pynetdicom raises what it likes at a malformed command
            self._is_cut_off = True
            log.warning("protocol_broken", reason=type(error).__name__, exc_info=True)
            self.assoc.dul.event_queue.put("Evt19")  # unrecognised or invalid PDU: aborts

    def _receive_fragments(self, primitive: P_DATA) -> None:
        """Go through fragments that may end one message's command and begin its data."""
        for fragment in primitive.presentation_data_value_list:
            single = P_DATA()
            single.presentation_data_value_list = [list(fragment)]  # pyright: ignore
            self._bound_memory(fragment[1])
            super().receive_primitive(single)
            message = self.message
            if message is None:
                self._in_memory_bytes = 0
            elif isinstance(message, C_STORE_RQ) and message._data_set_file is None:
                reception = self._receive(self._announce(message, fragment[0]))
                self._open.add(reception)
                message._data_set_file = reception  # pyright: ignore[reportAttributeAccessIssue]

    def done_with(self, reception: Reception) -> None:
        """Forget an object that was handled, and remove its file if the archive did not take it."""
        reception.discard()
        self._open.discard(reception)

    def discard_all(self) -> None:
        """Remove what an ended association left half received."""
        for reception in list(self._open):
            self.done_with(reception)

    def _bound_memory(self, data: bytes) -> None:
        is_command = data[0] & 1
        if self.message is not None and self.message._data_set_file is not None:
            if is_command:
                raise MessageRefusedError("another message within a data set")
            return
        self._in_memory_bytes += len(data)
        if self._in_memory_bytes > self.max_message_bytes:
            raise MessageRefusedError("a message larger than the bound that is no C-STORE")

    def _announce(self, message: C_STORE_RQ, context_id: int) -> Announced:
        """Read what was announced, and make the command one that pynetdicom can answer.

        A UID that is none, or another class than the context's, would make it abort or stay
        silent; the sender shall get a status instead.
        """
        command = message.command_set
        context = self.assoc._accepted_cx.get(context_id)
        if context is None:
            raise MessageRefusedError("a presentation context that was not accepted")
        announced = Announced(
            sop_class_uid=_uid(command, "AffectedSOPClassUID"),
            sop_instance_uid=_uid(command, "AffectedSOPInstanceUID"),
            context_class_uid=str(context.abstract_syntax),
            syntax=str(context.transfer_syntax[0]),
            ae=str(self.assoc.requestor.ae_title).strip(),
        )
        if not announced.sop_instance_uid or command.get("MessageID") is None:
            raise MessageRefusedError("a C-STORE without message ID or SOP Instance UID")
        command.AffectedSOPClassUID = UID(announced.context_class_uid)
        command.AffectedSOPInstanceUID = UID(
            announced.sop_instance_uid[:64].encode("ascii", "replace").decode()
        )
        if command.get("Priority") not in (0, 1, 2):
            command.Priority = 0  # never used
        return announced


def _uid(command: Dataset, keyword: str) -> str:
    return str(command.get(keyword) or "").strip(" \0")
