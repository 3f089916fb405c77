"""The site's peers: who may associate, for what, and how much. From a short setting or a file.

The file is TOML, one table ``[[peer]]`` for each, the first that fits a caller counts; a name that
is none of ``Peer``'s fields is an error, so that a misspelt limit is never no limit.
"""

import re
import tomllib
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from common.errors import ConfigurationError
from common.states import OrderPriority

ANY = "*"
Network = IPv4Network | IPv6Network
AeTitle = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=16, pattern=r"^[^\\]+$")
]


class CallBack(BaseModel, frozen=True):
    """Where a peer is called: its AE title, host and port."""

    ae_title: AeTitle
    host: str
    port: int = Field(ge=1, le=65535)

    @classmethod
    def parse(cls, text: object) -> object:
        """Read ``AE@host:port``; an IPv6 address stands in brackets."""
        if not isinstance(text, str):
            return text
        found = re.fullmatch(
            r"([^@]+)@(?:\[([0-9A-Fa-f:]+)\]|([^@:\[\]\s]+)):([0-9]+)", text.strip()
        )
        if found is None:
            raise ValueError(f"{text!r} is not AE@host:port")
        return cls(ae_title=found[1], host=found[2] or found[3], port=int(found[4]))


class Peer(BaseModel, frozen=True, extra="forbid"):
    """One peer; ``*`` is any AE title."""

    ae_title: AeTitle
    addresses: tuple[Annotated[Network, BeforeValidator(lambda text: _network(text))], ...] = Field(
        min_length=1
    )
    store: bool = True
    storage_commitment: bool = False
    call_back: Annotated[CallBack | None, BeforeValidator(CallBack.parse)] = None
    call_back_tls: bool = False
    order_priority: OrderPriority | None = None
    urgent: bool = False
    certificate_name: str | None = Field(default=None, min_length=1)
    certificate_sha256: (
        Annotated[str, StringConstraints(to_lower=True, pattern=r"^[0-9A-Fa-f]{64}$")] | None
    ) = None
    max_associations: int | None = Field(default=None, ge=1)
    objects_per_s: float | None = Field(default=None, ge=0.1)
    bytes_per_s: int | None = Field(default=None, ge=65536)

    @model_validator(mode="after")
    def _can_be_answered(self) -> Self:
        if self.storage_commitment and self.call_back is None:
            raise ValueError("storage_commitment needs call_back: answers may come late")
        if self.storage_commitment and self.ae_title == ANY:
            raise ValueError("storage_commitment needs an ae_title of its own")
        return self

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``AE@address`` or ``AE@network/bits``: a peer that may store, without limits."""
        ae_title, separator, address = text.strip().partition("@")
        if not separator or not ae_title or len(ae_title) > 16:
            raise ValueError(f"{text!r} is not AE@address")
        return cls(ae_title=ae_title, addresses=(_network(address),))

    def admits(self, ae_title: str, address: str) -> bool:
        """Say whether a caller with this title and address is the peer."""
        named = self.ae_title in (ANY, ae_title)
        return named and any(ip_address(address) in network for network in self.addresses)

    @property
    def needs_certificate(self) -> bool:
        """Say whether the peer is told by its certificate too, and so admitted by TLS alone."""
        return self.certificate_name is not None or self.certificate_sha256 is not None


@lru_cache
def read_peers(path: Path) -> tuple[Peer, ...]:
    """Read the site's file of peers, once in a process.

    Raises:
        ConfigurationError: it cannot be read or understood; the message names line and field.
    """
    try:
        text = path.read_text()
        content = tomllib.loads(text)
    except OSError as error:
        raise _wrong(path, None, error.strerror or "cannot be read") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _wrong(path, None, str(error)) from error
    tables = content.get("peer")
    unknown = sorted(set(content) - {"peer"})
    if unknown or not isinstance(tables, list):
        name = unknown[0] if unknown else "peer"
        raise _wrong(path, _line(text, name), f"{name}: the file holds [[peer]] tables alone")
    peers = []
    for number, table in enumerate(tables):
        try:
            peers.append(Peer.model_validate(table))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = str(first["loc"][0]) if first["loc"] else ""
            says = f"{field}: {first['msg']}" if field else first["msg"]
            raise _wrong(path, _line(text, field, number), says) from error
    return tuple(peers)


def _network(text: object) -> Network:
    if isinstance(text, IPv4Network | IPv6Network):
        return text
    return ip_network(str(text).strip(), strict=False)


def _line(text: str, field: str, number: int | None = None) -> int | None:
    """Find the line of a field of the peer with this number, else of the peer's head."""
    heads = -1
    found = None
    for line_number, line in enumerate(text.splitlines(), 1):
        if re.match(r"\s*\[\[\s*peer\s*\]\]", line):
            heads += 1
            if heads == number:
                found = line_number
        elif (number is None or heads == number) and re.match(
            rf"\s*\[*\s*[\"']?{re.escape(field)}[\"']?\s*[=\]]", line
        ):
            return line_number
    return found


def _wrong(path: Path, line: int | None, says: str) -> ConfigurationError:
    where = f"{path}, line {line}" if line else str(path)
    return ConfigurationError(f"FIRSTREAD_DICOM_PEERS_FILE, {where}: {says}")
