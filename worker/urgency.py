"""What goes first inside a worker: the same order as in the queue."""

from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # decoding processes import this, and have no use for a database
    from common.lifecycle import Claim

Urgency = tuple[int, datetime, int]  # band, due time, analysis; the smaller goes first


def urgency_of(claim: "Claim") -> Urgency:
    """Give a claimed analysis its place before a decoder and before the device."""
    return (claim.band, claim.due_at, claim.analysis_id)
