"""N-EVENT-REPORT to a peer over the association that it opened, while it goes on sending.

pynetdicom's own call would pause the association's thread from outside, which the direct path
does too: here that thread itself sends what is queued, and finds the answer among what comes in.
"""

from collections import deque
from io import BytesIO
from threading import Event as Flag
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import encode

from dicom_listener.streaming import StreamingProvider

COMMITMENT_CLASS_UID = "1.2.840.10008.1.20.1"
COMMITMENT_INSTANCE_UID = "1.2.840.10008.1.20.1.1"


class EventReport:
    """One report on its way; ``answered`` is set with the peer's status."""

    def __init__(self, event_type: int, information: Dataset) -> None:
        self.event_type = event_type
        self.information = information
        self.answered = Flag()
        self.status: int | None = None


class ReportingProvider(StreamingProvider):
    """Receive messages, and send reports between them from the association's own thread."""

    def __init__(self, *arguments: Any) -> None:  # noqa: ANN401 - as its base takes them
        super().__init__(*arguments)
        self._queued: deque[EventReport] = deque()
        self._sent: EventReport | None = None
        self._message_id = 0
        self._is_sending = False

    @property
    def is_receiving(self) -> bool:
        """Say whether another path has to keep off: a message comes in, or a report goes out."""
        return self._is_sending or super().is_receiving

    def report(self, report: EventReport) -> None:
        """Send a report when the association's thread comes to it. Safe in any thread."""
        self._queued.append(report)

    def get_msg(self, block: bool = False) -> Any:  # noqa: ANN401 - theirs
        """Give the association's thread its next message; keep answers to reports."""
        if not block and self._queued and self._sent is None:
            self._send(self._queued.popleft())
        context_id, message = super().get_msg(block)
        if isinstance(message, N_EVENT_REPORT) and not message.is_valid_request:
            report, self._sent = self._sent, None
            if report is not None and message.MessageIDBeingRespondedTo == self._message_id:
                report.status = message.Status
                report.answered.set()
            return None, None
        return context_id, message

    def _send(self, report: EventReport) -> None:
        context = next(
            context
            for context in self.assoc._accepted_cx.values()
            if context.abstract_syntax == COMMITMENT_CLASS_UID
        )
        syntax = context.transfer_syntax[0]
        encoded = encode(
            report.information, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated
        )
        self._message_id = self._message_id % 0xFFFF + 1
        request = N_EVENT_REPORT()
        request.MessageID = self._message_id
        request.AffectedSOPClassUID = UID(COMMITMENT_CLASS_UID)
        request.AffectedSOPInstanceUID = UID(COMMITMENT_INSTANCE_UID)
        request.EventTypeID = report.event_type
        request.EventInformation = BytesIO(encoded or b"")
        self._sent = report
        self._is_sending = True  # the direct path must not answer between two of its fragments
        try:
            self.send_msg(request, int(context.context_id or 0))
        finally:
            self._is_sending = False
