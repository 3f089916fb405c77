"""What this listener saw of the ledger lately: enough to begin a study without a look first."""

import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timedelta
from threading import Lock

_CLOCK_KEEPS_S = 30.0
_STUDIES = 4096


def _since_boot_s() -> float:
    """Count seconds, those too for which this machine is asleep."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Recent:
    """The database's clock, and studies that are there already. A guess that fails costs a look.

    The clock is carried on for seconds by one of our own that nobody sets: instants in rows are
    the database's, whatever this host believes. For any thread.
    """

    def __init__(self, since_boot_s: Callable[[], float] = _since_boot_s) -> None:
        self._since_boot_s = since_boot_s
        self._seen: tuple[datetime, float] | None = None
        self._studies: OrderedDict[str, None] = OrderedDict()
        self._lock = Lock()

    def saw_clock(self, now: datetime) -> None:
        """Note what the database's clock said just now."""
        self._seen = now, self._since_boot_s()

    def now(self) -> datetime | None:
        """Give the database's clock; None when it was last seen too long ago."""
        seen = self._seen
        if seen is None:
            return None
        since_s = self._since_boot_s() - seen[1]
        return seen[0] + timedelta(seconds=since_s) if since_s < _CLOCK_KEEPS_S else None

    def is_first_of(self, study_instance_uid: str) -> bool:
        """Say whether no object of this study was seen lately, and note that one was now."""
        with self._lock:
            is_new = study_instance_uid not in self._studies
            self._studies[study_instance_uid] = None
            self._studies.move_to_end(study_instance_uid)
            if len(self._studies) > _STUDIES:
                self._studies.popitem(last=False)
        return is_new
