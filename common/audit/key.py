"""The key of the audit chains: outside the database, so that who changes rows cannot mend them."""

import hashlib
import os
import secrets
import tempfile
from pathlib import Path

from common.errors import ConfigurationError
from common.settings import Settings

KEY_BYTES = 32


def key_path(settings: Settings) -> Path:
    """Say where the key lies."""
    return settings.audit_key_file or settings.endpoints_file.with_name("audit.key")


def read_key(settings: Settings) -> bytes:
    """Read the key; make it where no file was named and none is there yet.

    Raises:
        ConfigurationError: the named file is missing, unreadable or too short to be a key.
    """
    path = key_path(settings)
    try:
        if settings.audit_key_file is None and not path.exists():
            _make(path)
        text = path.read_text(encoding="ascii").strip()
        key = bytes.fromhex(text)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not hexadecimal"
        raise ConfigurationError(f"FIRSTREAD_AUDIT_KEY_FILE: {path}: {reason}") from None
    if len(key) < KEY_BYTES:
        raise ConfigurationError(
            f"FIRSTREAD_AUDIT_KEY_FILE: {path}: fewer than {2 * KEY_BYTES} hexadecimal digits"
        )
    return key


def key_id(key: bytes) -> str:
    """Name a key without telling anything of it."""
    return hashlib.sha256(b"firstread audit key id" + key).hexdigest()[:16]


def _make(path: Path) -> None:
    """Write a new key, whole or not at all; of two processes that do so at once one wins."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, replacement = tempfile.mkstemp(dir=path.parent, prefix=".audit.key.")  # 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(replacement)
        except FileExistsError:
            return
    finally:
        Path(replacement).unlink()
