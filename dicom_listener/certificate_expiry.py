"""When a certificate ends, read from its file: for an alert before senders are turned away."""

import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_SEQUENCE, _UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x30, 0x17, 0x18, 0xA0


def expires_at(path: Path) -> datetime:
    """Read the end of the first certificate of a PEM file. Source: RFC 5280 section 4.1.

    Raises:
        ValueError: there is none that can be read.
        OSError: nor a file.
    """
    found = re.search(f"{_BEGIN}.*?{_END}", path.read_text(), re.DOTALL)
    if found is None:
        raise ValueError(f"{path} holds no certificate")
    try:
        (certificate,) = _elements(ssl.PEM_cert_to_DER_cert(found[0]))
        to_be_signed = next(_elements(certificate[1]))
        fields = [one for one in _elements(to_be_signed[1]) if one[0] != _VERSION]
        _, end = _elements(fields[3][1])  # serial number, algorithm, issuer, validity
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path} holds no certificate that can be read") from error
    text = end[1].decode("ascii")
    if end[0] == _UTC_TIME:  # two digits of the year: 50 to 99 are of the last century
        text = ("19" if text[:2] >= "50" else "20") + text
    elif end[0] != _GENERALIZED_TIME:
        raise ValueError(f"{path} has a certificate without an end")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Walk the elements of DER, tag and content."""
    at = 0
    while at < len(data):
        tag, length, at = data[at], data[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(data[at : at + size], "big"), at + size
        if at + length > len(data):
            raise ValueError("cut off")
        yield tag, data[at : at + length]
        at += length
