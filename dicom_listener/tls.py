"""DICOM TLS: who has no valid certificate gets no association, and no handshake holds up another.

Source: PS3.15 annex B.12 and B.13 (BCP 195, RFC 8996 and 9325).
"""

import hashlib
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from common import metrics
from common.errors import ConfigurationError
from common.logs import get_logger
from common.settings import Settings
from dicom_listener.peers import Certificate

# Forward secrecy and authenticated encryption only; TLS 1.3 has suites of its own, all of them so.
_TLS_1_2_SUITES = "ECDHE+AESGCM:ECDHE+CHACHA20"
HANDSHAKE_S = 10.0
_HANDSHAKES_PER_ADDRESS = 16

Serve = Callable[[Any, Any], None]

log = get_logger()


def is_secured(settings: Settings) -> bool:
    """Say whether the site gave a certificate, so that TLS is spoken."""
    return settings.dicom_tls_certificate is not None


def server_context(settings: Settings) -> ssl.SSLContext:
    """Make what every handshake with a sender is held to: a client certificate of the site's CA.

    Raises:
        ConfigurationError: a file cannot be read, or key and certificate do not belong together.
    """
    context = _context(settings, ssl.PROTOCOL_TLS_SERVER)
    # Without tickets nobody resumes a session under a certificate that has expired meanwhile.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_CIPHER_SERVER_PREFERENCE
    return context


def client_context(settings: Settings) -> ssl.SSLContext:
    """Make what we call a peer back with: our certificate is our client certificate too.

    Raises:
        ConfigurationError: as ``server_context``.
    """
    context = _context(settings, ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # a device's certificate names the device, rarely its address
    return context


def _context(settings: Settings, protocol: int) -> ssl.SSLContext:
    certificate, key, authority = (
        settings.dicom_tls_certificate,
        settings.dicom_tls_key,
        settings.dicom_tls_ca,
    )
    if certificate is None or key is None or authority is None:
        raise ConfigurationError("FIRSTREAD_DICOM_TLS_CERTIFICATE, _KEY and _CA go together")
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(_TLS_1_2_SUITES)
    for path in (certificate, key, authority):
        _require_readable(path)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigurationError(
            f"FIRSTREAD_DICOM_TLS_CERTIFICATE and _KEY, {certificate} and {key}: not a certificate "
            f"and its unencrypted key in PEM ({getattr(error, 'reason', None) or error})"
        ) from error
    try:
        context.load_verify_locations(cafile=authority)
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"FIRSTREAD_DICOM_TLS_CA, {authority}: no certificates in PEM ({error.reason})"
        ) from error
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def _require_readable(path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"FIRSTREAD_DICOM_TLS_*: {path} cannot be read ({error.strerror})"
        ) from error


def certificate_of(connection: socket.socket) -> Certificate | None:
    """Give what the peer proved to be by its certificate; None on a connection without TLS."""
    if not isinstance(connection, ssl.SSLSocket):
        return None
    encoded, read = connection.getpeercert(binary_form=True), connection.getpeercert()
    if not encoded or not read:
        return None
    names: Any = read.get("subject", ())
    common = [value for part in names for name, value in part if name == "commonName"]
    return Certificate(
        common_name=common[-1] if common else "", sha256=hashlib.sha256(encoded).hexdigest()
    )


class Handshakes:
    """Handshakes under way, a thread and a deadline each, bounded in all and by address."""

    def __init__(
        self, context: ssl.SSLContext, *, at_most: int, deadline_s: float, then_timeout_s: float
    ) -> None:
        """Take the context.

        Args:
            context: What each handshake is held to.
            at_most: Handshakes at a time.
            deadline_s: How long one may take, however it drips.
            then_timeout_s: The timeout of reads and writes on the secured connection.
        """
        self._context = context
        self._at_most = at_most
        self._deadline_s = deadline_s
        self._then_timeout_s = then_timeout_s
        self._lock = Lock()
        self._under_way: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()

    @property
    def refused(self) -> dict[str, int]:
        """Connections that got no association, by reason, since the start."""
        with self._lock:
            return dict(self._refused)

    def begin(self, connection: socket.socket, address: tuple[Any, ...], serve: Serve) -> None:
        """Shake hands in a thread of its own, then serve; returns at once."""
        host = str(address[0])
        with self._lock:
            too_many = (
                self._under_way.total() >= self._at_most
                or self._under_way[host] >= _HANDSHAKES_PER_ADDRESS
            )
            if not too_many:
                self._under_way[host] += 1
        if too_many:
            self._refuse(host, "too many handshakes")
            connection.close()
            return
        Thread(
            target=self._run, args=(connection, address, serve), name="handshake", daemon=True
        ).start()

    def _run(self, connection: socket.socket, address: tuple[Any, ...], serve: Serve) -> None:
        host = str(address[0])
        try:
            secured = self._shake_hands(connection, host)
        finally:
            with self._lock:
                self._under_way[host] -= 1
                self._under_way += Counter()  # forgets addresses that have none
        if secured is None:
            return
        try:
            serve(secured, address)
        except Exception:  # the boundary of this thread
            log.exception("connection_failed", source_address=host)
            secured.close()

    def _shake_hands(self, connection: socket.socket, host: str) -> ssl.SSLSocket | None:
        secured = None
        try:
            connection.settimeout(self._deadline_s)  # of the whole handshake, not of each read
            connection.getpeername()  # of one that is gone, wrap_socket would leave a socket open
            secured = self._context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
            secured.do_handshake()
            secured.settimeout(self._then_timeout_s)
        except (OSError, ValueError) as error:
            self._refuse(host, _reason(error))
            (secured or connection).close()
            return None
        return secured

    def _refuse(self, host: str, reason: str) -> None:
        with self._lock:
            self._refused[reason] += 1
        metrics.REJECTED.labels("tls_handshake").inc()
        log.warning("handshake_refused", source_address=host, reason=reason)


def _reason(error: Exception) -> str:
    """Name why a handshake failed, in few and fixed words: no peer chooses them."""
    if isinstance(error, TimeoutError):
        return "no handshake in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return "the peer has gone"
