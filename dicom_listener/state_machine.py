"""pynetdicom's upper layer state machine, for a peer that breaks off at the wrong moment.

Its own raises at an event that the table of states does not know, in the reading thread, which
ends with a traceback and without closing anything. Such events are real: a sender whose next
bytes are nonsense is being aborted while the acceptance of its association is on the way out.
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
            super().do_action(event)
            return
        if event in _OWN_PRIMITIVES:  # it waits in the queue, and would be met again at once
            with suppress(queue.Empty):
                self.dul.to_provider_queue.get(block=False)
        if self.current_state in _OVER:
            return
        log.warning("protocol_broken", reason=f"{event} in {self.current_state}")
        association = self.dul.assoc
        association.is_aborted, association.is_established = True, False
        association._kill = self.dul._kill_thread = True
        connection = cast(BufferedSocket | None, self.dul.socket)
        if connection is not None:
            connection.close()
