"""Structured logs: events are ``noun_verb``, fields DICOM keywords; no patient name or id."""

import logging
import sys
from typing import Any

import structlog

PATIENT_FIELDS = frozenset(
    {"patient_name", "patient_id", "patient_birth_date", "other_patient_ids", "patient_address"}
)


def _drop_patient(_: object, __: str, event: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key not in PATIENT_FIELDS}


def configure_logs(service: str, level: str = "info") -> None:
    """Log to standard error: readable on a terminal, one JSON object per line elsewhere."""
    renderer = (
        structlog.dev.ConsoleRenderer()
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _drop_patient,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, renderer]
        if not sys.stderr.isatty()
        else [*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s %(message)s")


def get_logger() -> Any:  # noqa: ANN401 - structlog's own loggers are typed so
    """Give a logger for a module."""
    return structlog.get_logger()
