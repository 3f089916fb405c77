"""Secrets from files: for each secret setting X, FIRSTREAD_X_FILE names a file that holds it."""

import os
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from common.errors import ConfigurationError

PREFIX = "FIRSTREAD_"


def is_secret(field: FieldInfo) -> bool:
    """Say whether a setting's value must never be shown."""
    return field.annotation in (SecretStr, SecretStr | None)


class SecretFiles(PydanticBaseSettingsSource):
    """Read each secret whose file is named, as container engines hand secrets over."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Read one secret; None where no file is named.

        Raises:
            ConfigurationError: the file cannot be read or is empty, or the variable is set too.
        """
        variable = f"{PREFIX}{field_name.upper()}"
        path = os.environ.get(f"{variable}_FILE")
        if not path or not is_secret(field):
            return None, field_name, False
        if os.environ.get(variable):
            raise ConfigurationError(f"{variable} and {variable}_FILE are both set: keep one")
        try:
            secret = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not text"
            raise ConfigurationError(f"{variable}_FILE: {path}: {reason}") from None
        if not secret:
            raise ConfigurationError(f"{variable}_FILE: {path} is empty")
        return secret, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Read all of them."""
        found = {
            name: self.get_field_value(field, name)[0]
            for name, field in self.settings_cls.model_fields.items()
        }
        return {name: value for name, value in found.items() if value is not None}
