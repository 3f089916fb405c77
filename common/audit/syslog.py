"""Syslog over TLS, TCP or UDP. Source: RFC 5424, 5425, 5426 and 6587 (octet counting).

Syslog acknowledges nothing. A batch counts as delivered only when the server has closed the
connection in order behind it, or its kernel has acknowledged every byte; else it is sent again.
"""

import contextlib
import fcntl
import os
import socket
import ssl
import struct
import termios
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from common.errors import ConfigurationError
from common.settings import Settings

PRIORITY = 10 * 8 + 5  # security, notice. Source: PS3.15 section A.6
MESSAGE_ID = "DICOM+RFC3881"
TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Line:
    """One syslog message."""

    at: datetime
    body: bytes  # UTF-8
    message_id: str = MESSAGE_ID

    def framed(self) -> bytes:
        """Write header and body. Source: RFC 5424 section 6."""
        stamp = self.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        host = _printable(socket.gethostname(), 255)
        header = f"<{PRIORITY}>1 {stamp} {host} firstread {os.getpid()} {self.message_id} - "
        return header.encode("ascii") + b"\xef\xbb\xbf" + self.body


class SyslogServer:
    """Where the site's audit repository listens."""

    def __init__(self, settings: Settings) -> None:
        """Read whom to trust.

        Raises:
            ConfigurationError: a certificate cannot be read.
        """
        parts = urlsplit(settings.audit_syslog)
        self.scheme = parts.scheme
        self.host, self.port = parts.hostname or "", parts.port or 6514
        self._context = _context(settings) if self.scheme == "tls" else None

    def deliver(self, lines: Sequence[Line]) -> None:
        """Send a batch and see that it arrived; UDP cannot see that.

        Raises:
            OSError: some of it may not have arrived; send all of it again.
        """
        if self.scheme == "udp":
            self._deliver_datagrams(lines)
            return
        with socket.create_connection((self.host, self.port), timeout=TIMEOUT_S) as plain:
            if self._context is None:
                plain.sendall(_octet_counted(lines))
                plain.shutdown(socket.SHUT_WR)
                _await_end(plain)
                return
            with self._context.wrap_socket(plain, server_hostname=self.host) as secured:
                secured.sendall(_octet_counted(lines))
                _close_in_order(secured)

    def _deliver_datagrams(self, lines: Iterable[Line]) -> None:
        family, _, _, _, address = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_DGRAM)[
            0
        ]
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            for line in lines:
                sender.sendto(line.framed(), address)


def _context(settings: Settings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.audit_syslog_ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.audit_syslog_certificate is not None:
            context.load_cert_chain(settings.audit_syslog_certificate)
    except OSError as error:
        raise ConfigurationError(
            "FIRSTREAD_AUDIT_SYSLOG_CA or FIRSTREAD_AUDIT_SYSLOG_CERTIFICATE cannot be used: "
            f"{error}"
        ) from error
    return context


def _octet_counted(lines: Iterable[Line]) -> bytes:
    framed = (line.framed() for line in lines)
    return b"".join(b"%d %s" % (len(frame), frame) for frame in framed)


def _close_in_order(secured: ssl.SSLSocket) -> None:
    """Say that no more comes and wait for the server's own goodbye."""
    try:
        secured.unwrap()
    except TimeoutError:
        _require_all_acknowledged(secured)
    except ssl.SSLEOFError:
        return  # closed without TLS' goodbye; unread bytes would have been a reset


def _await_end(plain: socket.socket) -> None:
    try:
        while plain.recv(4096):
            pass
    except TimeoutError:
        _require_all_acknowledged(plain)


def _require_all_acknowledged(connection: socket.socket) -> None:
    """A server that keeps connections open: its kernel at least has taken every byte."""
    waiting = struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
    if waiting:
        raise TimeoutError(f"{waiting} bytes were not taken by the syslog server")
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _printable(text: str, length: int) -> str:
    return "".join(c for c in text if "!" <= c <= "~")[:length] or "-"
