"""pynetdicom's upper layer state machine, for a peer that breaks off at the wrong moment.

Its own raises in the reading thread, which then ends without closing anything: at an event that
the table of states does not know (the sender's next bytes are nonsense, and it is being aborted
while the acceptance of its association is on the way out), and at a value that no PDU may hold (an
abort for a reason that does not exist).
"""

import queue
from contextlib import suppress
from typing import cast

from pynetdicom.fsm import TRANSITION_TABLE, StateMachine

from common.logs import get_logger
from dicom_listener.buffered_socket import BufferedSocket

_OVER = ("Sta1", "Sta13")  # PS3.8 table 9-10: idle; waiting for the connection to close
_OWN_PRIMITIVES = ("Evt1", "Evt7", "Evt8", "Evt9", "Evt11", "Evt14", "Evt15")

log = get_logger()


class ForgivingStateMachine(StateMachine):
    """Drop what comes too late, and end an association in which anything else is impossible."""

    def do_action(self, event: str) -> None:
        """Do what the table says; never raise for what it does not."""
        if (event, self.current_state) in TRANSITION_TABLE:
            try:
                super().do_action(event)
            except Exception as error:  # the boundary: pynetdicom raises what it likes at a PDU
                log.warning("protocol_broken", reason=type(error).__name__, exc_info=True)
                self._end()
            return
        if event in _OWN_PRIMITIVES:  # it waits in the queue, and would be met again at once
            with suppress(queue.Empty):
                self.dul.to_provider_queue.get(block=False)
        if self.current_state in _OVER:
            return
        log.warning("protocol_broken", reason=f"{event} in {self.current_state}")
        self._end()

    def _end(self) -> None:
        """End both threads and the connection, whatever state they are in."""
        association = self.dul.assoc
        association.is_aborted, association.is_established = True, False
        association._kill = self.dul._kill_thread = True
        connection = cast(BufferedSocket | None, self.dul.socket)
        if connection is not None:
            connection.close()
