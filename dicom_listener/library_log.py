"""pynetdicom's own log, bounded."""

import logging
import time

from pynetdicom import _config


def quiet_pynetdicom() -> None:
    """Keep pynetdicom's own log to a few lines a minute; it would print each PDU at debug."""
    _config.LOG_HANDLER_LEVEL = "none"
    logger = logging.getLogger("pynetdicom")
    logger.setLevel(logging.ERROR)
    if not any(isinstance(one, FewRecords) for one in logger.filters):
        for name in [*logging.root.manager.loggerDict]:
            if name.startswith("pynetdicom."):
                logging.getLogger(name).addFilter(FewRecords.shared())
        logger.addFilter(FewRecords.shared())


class FewRecords(logging.Filter):
    """Let ten records a minute pass, without tracebacks: port scanners cause thousands."""

    _one: "FewRecords | None" = None

    def __init__(self, per_minute: int = 10) -> None:
        super().__init__()
        self._per_minute = per_minute
        self._minute = 0.0
        self._passed = 0

    @classmethod
    def shared(cls) -> "FewRecords":
        """Give the one filter that all of pynetdicom's loggers share."""
        if cls._one is None:
            cls._one = cls()
        return cls._one

    def filter(self, record: logging.LogRecord) -> bool:
        """Count a record, and say whether it may pass."""
        now = time.monotonic()
        if now - self._minute > 60:
            self._minute, self._passed = now, 0
        self._passed += 1
        record.exc_info = None
        return self._passed <= self._per_minute
