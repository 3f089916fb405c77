"""Until when certificates are valid, read from their encoding."""

import ssl
from datetime import UTC, datetime
from pathlib import Path

_SEQUENCE, _UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x30, 0x17, 0x18, 0xA0


def valid_until(path: Path) -> list[datetime]:
    """Give the end of validity of each certificate in a PEM file.

    Raises:
        ValueError: the file holds no certificate that can be read.
        Source: RFC 5280 section 4.1.
    """
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    found = [part.partition(end)[0] for part in path.read_text().split(begin)[1:]]
    if not found:
        raise ValueError("holds no certificate in PEM")
    try:
        return [_not_after(ssl.PEM_cert_to_DER_cert(f"{begin}{part}{end}")) for part in found]
    except (IndexError, ValueError) as error:
        raise ValueError("holds a certificate that cannot be read") from error


def _not_after(certificate: bytes) -> datetime:
    """Read notAfter: the second time of the fourth field, after an optional version."""
    _, body, _ = _element(certificate, 0)
    _, fields, _ = _element(body, 0)
    at = 0
    if fields[0] == _VERSION:
        _, _, at = _element(fields, at)
    for _ in range(3):  # serial number, signature algorithm, issuer
        _, _, at = _element(fields, at)
    tag, validity, _ = _element(fields, at)
    if tag != _SEQUENCE:
        raise ValueError("no validity")
    _, _, at = _element(validity, 0)
    tag, value, _ = _element(validity, at)
    if tag not in (_UTC_TIME, _GENERALIZED_TIME):
        raise ValueError("no time")
    text = value.decode("ascii")
    if tag == _UTC_TIME:  # RFC 5280: two digits of the year, of 1950 to 2049
        text = f"{'19' if text >= '50' else '20'}{text}"
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _element(data: bytes, at: int) -> tuple[int, bytes, int]:
    """Read one DER element: its tag, its content, and where the next begins."""
    tag, length, start = data[at], data[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length = int.from_bytes(data[start : start + count], "big")
        start += count
    if start + length > len(data):
        raise ValueError("cut off")
    return tag, data[start : start + length], start + length
