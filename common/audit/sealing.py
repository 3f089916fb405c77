"""The arithmetic of a chain: each row's HMAC covers the row and the HMAC before it."""

import hashlib
import hmac
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self
from uuid import UUID

from common.tables import AuditEvent

HEAD = "chain={chain_id} sequence={sequence} hmac={hmac}"
HEAD_PATTERN = r"chain=([0-9a-f-]{36}) sequence=(\d+) hmac=([0-9a-f]{64})"


@dataclass(frozen=True)
class Content:
    """What of a row the chain protects."""

    chain_id: UUID
    sequence: int
    at: datetime
    actor: str
    action: str
    study_instance_uid: str | None
    detail: dict[str, Any]

    @classmethod
    def of(cls, event: AuditEvent, chain_id: UUID, sequence: int) -> Self:
        """Take what is protected from a row in its place."""
        return cls(
            chain_id,
            sequence,
            event.at,
            event.actor,
            event.action,
            event.study_instance_uid,
            event.detail,
        )

    def canonical(self) -> bytes:
        """Write it in the one way that survives the database and back."""
        parts = [
            str(self.chain_id),
            self.sequence,
            self.at.astimezone(UTC).isoformat(timespec="microseconds"),
            self.actor,
            self.action,
            self.study_instance_uid,
            _plain(self.detail),
        ]
        return json.dumps(
            parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
        ).encode()


def genesis(key: bytes, chain_id: UUID) -> bytes:
    """Give what stands before a chain's first row."""
    return hmac.digest(key, b"firstread audit chain " + chain_id.bytes, hashlib.sha256)


def seal(key: bytes, before: bytes, content: Content) -> bytes:
    """Give a row's HMAC-SHA-256."""
    return hmac.digest(key, before + content.canonical(), hashlib.sha256)


def _plain(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Spell numbers as JSONB gives them back: 2.0 and 2 are one number."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
