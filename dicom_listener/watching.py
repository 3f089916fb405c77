"""What a listener shows to whoever watches it, beside what it counts as objects come."""

import threading
from collections.abc import Callable

from sqlalchemy import Engine

from common import metrics
from common.archive import Archive
from common.errors import ConfigurationError
from common.metrics_server import MetricsServer
from common.readiness import archive_check, database_check
from common.settings import Settings
from dicom_listener.certificate_expiry import valid_until
from dicom_listener.connections import Acceptor


def watched(settings: Settings, engine: Engine, moves: Callable[[], bool]) -> MetricsServer:
    """Open the door for whoever watches this listener; nothing where no port is set.

    The broker is not asked: without it objects are received and wait in the ledger.

    Args:
        settings: What the site decided.
        engine: The listener's own way to the database.
        moves: Says whether every socket's loop accepts.

    Raises:
        ConfigurationError: the address may not or cannot be bound to.
    """
    archive = Archive(settings.archive_path)
    metrics.ASSOCIATIONS.set_function(_count_associations)
    metrics.FREE_BYTES.set_function(archive.free_bytes)
    metrics.RESERVE_BYTES.set(settings.archive_reserve_bytes)
    if settings.dicom_tls_certificate is not None:
        try:
            ends_at = min(valid_until(settings.dicom_tls_certificate))
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"FIRSTREAD_DICOM_TLS_CERTIFICATE: {error}") from error
        metrics.CERTIFICATE_EXPIRY.set(ends_at.timestamp())
    return MetricsServer(
        settings,
        "listener",
        alive={"accept": moves},
        ready=(database_check(engine), archive_check(archive, settings.archive_reserve_bytes)),
    )


def _count_associations() -> int:
    return sum(isinstance(thread, Acceptor) for thread in threading.enumerate())
