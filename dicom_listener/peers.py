"""Who may associate: nobody beyond loopback who is not on the list, and not too many at a time."""

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address
from threading import Lock
from typing import Protocol

from common.settings import Settings

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"


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
        self._holders: set[Living] = set()
        self._stopping = False

    def admit(self, caller: Caller, holder: Living) -> Refusal | None:
        """Give the caller a place, or say why not. Safe to call from many threads."""
        refusal = self._refuse(caller)
        if refusal is not None:
            return refusal
        with self._lock:
            self._holders = {one for one in self._holders if one.is_alive()}
            if self._stopping:
                return Refusal.STOPPING
            if len(self._holders) >= self._settings.dicom_max_associations:
                return Refusal.LIMIT_EXCEEDED
            self._holders.add(holder)
        return None

    def release(self, holder: Living) -> None:
        """Free a place before its thread has quite ended."""
        with self._lock:
            self._holders.discard(holder)

    def stop(self) -> None:
        """Admit nobody from now on."""
        with self._lock:
            self._stopping = True

    def _refuse(self, caller: Caller) -> Refusal | None:
        if caller.application_context != APPLICATION_CONTEXT:
            return Refusal.APPLICATION_CONTEXT_UNKNOWN
        if not is_admitted(caller, self._settings):
            return Refusal.CALLING_AE_TITLE_UNKNOWN
        if caller.called_ae_title.strip() != self._settings.ae_title.strip():
            return Refusal.CALLED_AE_TITLE_UNKNOWN
        return None


def is_admitted(caller: Caller, settings: Settings) -> bool:
    """Say whether the site's list, or loopback, admits this title from this address."""
    address = plain_address(caller.address)
    if address.is_loopback:
        return True
    title = caller.calling_ae_title.strip()
    return any(peer.admits(title, str(address)) for peer in settings.dicom_peers)


def plain_address(text: str) -> IPv4Address | IPv6Address:
    """Read an address; an IPv4 one that came through an IPv6 socket is IPv4."""
    address = ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
