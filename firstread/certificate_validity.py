"""Whether the certificates of TLS will hold, and whether their key is kept."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from common.errors import ConfigurationError
from common.settings import Settings
from dicom_listener.certificate_expiry import valid_until

RENEW_BEFORE = timedelta(days=30)


@dataclass(frozen=True)
class Verdict:
    """What one look at the files of TLS comes to."""

    ok: bool
    says: str


def judge_tls(settings: Settings, now: datetime | None = None) -> Iterator[Verdict]:
    """Look at the listener's certificate, its key and the authorities, as the listener will."""
    from dicom_listener.tls import server_context

    certificate, key, authorities = (
        settings.dicom_tls_certificate,
        settings.dicom_tls_key,
        settings.dicom_tls_ca,
    )
    if certificate is None or key is None or authorities is None:
        return
    try:
        server_context(settings)
    except ConfigurationError as error:
        yield Verdict(False, str(error))
        return
    for path in (certificate, authorities):
        yield _judge_validity(path, now or datetime.now(UTC))
    if key.stat().st_mode & 0o077:
        yield Verdict(False, f"{key} is readable by others than its owner: chmod 600 {key}")
    else:
        yield Verdict(True, f"{key} is its owner's alone")


def _judge_validity(path: Path, now: datetime) -> Verdict:
    try:
        ends = min(valid_until(path))
    except ValueError as error:
        return Verdict(False, f"{path}: {error}")
    left = ends - now
    if left <= timedelta():
        return Verdict(False, f"{path} expired on {ends:%Y-%m-%d}: renew it and restart")
    if left < RENEW_BEFORE:
        return Verdict(
            False, f"{path} expires on {ends:%Y-%m-%d}, in {left.days} days: renew it and restart"
        )
    return Verdict(True, f"{path} is valid until {ends:%Y-%m-%d}")
