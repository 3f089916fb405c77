"""Who may associate: nobody beyond loopback who is not on the list, and not too many at a time."""

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address
from threading import Lock
from typing import Protocol

from common.peers import ANY, Peer
from common.settings import Settings
from dicom_listener.pace import Pace

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
LOOPBACK = Peer.model_validate({"ae_title": ANY, "addresses": ("127.0.0.0/8", "::1/128")})


class Refusal(Enum):
    """Why an association is rejected: result, source, reason. Source: PS3.8 table 9-21."""

    APPLICATION_CONTEXT_UNKNOWN = (1, 1, 2)
    CALLING_AE_TITLE_UNKNOWN = (1, 1, 3)
    CALLED_AE_TITLE_UNKNOWN = (1, 1, 7)
    STOPPING = (2, 3, 1)
    LIMIT_EXCEEDED = (2, 3, 2)


@dataclass(frozen=True)
class Certificate:
    """Who a sender proved to be in the TLS handshake."""

    common_name: str
    sha256: str  # of the DER encoding, lower-case hexadecimal


@dataclass(frozen=True)
class Caller:
    """What a sender says of itself, and the address that it really has."""

    calling_ae_title: str
    called_ae_title: str
    address: str
    application_context: str = APPLICATION_CONTEXT
    certificate: Certificate | None = None  # of a connection with TLS


class Living(Protocol):
    """Something that holds a place for as long as it lives: an association's thread."""

    def is_alive(self) -> bool:
        """Say whether it still runs."""
        ...


class Admission:
    """Decide on each request; a place is free again when the thread that held it has ended."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._holders: dict[Living, Peer] = {}
        self._paces: dict[Peer, Pace] = {}
        self._stopping = False

    def admit(self, caller: Caller, holder: Living) -> Peer | Refusal:
        """Give the caller a place and its rule, or say why not. Safe to call from many threads."""
        if caller.application_context != APPLICATION_CONTEXT:
            return Refusal.APPLICATION_CONTEXT_UNKNOWN
        peer = peer_of(caller, self._settings)
        if peer is None:
            return Refusal.CALLING_AE_TITLE_UNKNOWN
        if caller.called_ae_title.strip() != self._settings.ae_title.strip():
            return Refusal.CALLED_AE_TITLE_UNKNOWN
        with self._lock:
            self._holders = {one: its for one, its in self._holders.items() if one.is_alive()}
            if self._stopping:
                return Refusal.STOPPING
            if len(self._holders) >= self._settings.dicom_max_associations:
                return Refusal.LIMIT_EXCEEDED
            of_peer = sum(its == peer for its in self._holders.values())
            if peer.max_associations is not None and of_peer >= peer.max_associations:
                return Refusal.LIMIT_EXCEEDED
            self._holders[holder] = peer
        return peer

    def pace_of(self, peer: Peer) -> Pace:
        """Give what all associations of a peer share of its rate."""
        with self._lock:
            return self._paces.setdefault(peer, Pace(peer.objects_per_s, peer.bytes_per_s))

    def release(self, holder: Living) -> None:
        """Free a place before its thread has quite ended."""
        with self._lock:
            self._holders.pop(holder, None)

    @property
    def is_stopping(self) -> bool:
        """Say whether nobody is admitted any more."""
        return self._stopping

    def stop(self) -> None:
        """Admit nobody from now on."""
        with self._lock:
            self._stopping = True


def is_admitted(caller: Caller, settings: Settings) -> bool:
    """Say whether the site's rules, or loopback, admit this caller."""
    return peer_of(caller, settings) is not None


def peer_of(caller: Caller, settings: Settings) -> Peer | None:
    """Find the rule for a caller: the first with its title, address and certificate.

    A caller on loopback that no rule names may store. One that a rule names by title and address
    must prove to be it where the rule says how.
    """
    address = plain_address(caller.address)
    title = caller.calling_ae_title.strip()
    named = [peer for peer in settings.peers if peer.admits(title, str(address))]
    proven = (peer for peer in named if _proves(caller.certificate, peer))
    return next(proven, LOOPBACK if address.is_loopback and not named else None)


def _proves(certificate: Certificate | None, peer: Peer) -> bool:
    if not peer.needs_certificate:
        return True
    return (
        certificate is not None
        and peer.certificate_name in (None, certificate.common_name)
        and peer.certificate_sha256 in (None, certificate.sha256)
    )


def plain_address(text: str) -> IPv4Address | IPv6Address:
    """Read an address; an IPv4 one that came through an IPv6 socket is IPv4."""
    address = ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
