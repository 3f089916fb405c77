"""Write docs/settings.md from the settings themselves: python -m firstread.settings_page."""

import sys
from pathlib import Path

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from common.secret_files import is_secret
from common.settings import Settings

HEAD = """# Settings

Every setting is an environment variable, read once when a command starts. An impossible value
stops the command with the variable's name. An empty value is as good as none. A secret may come
from a file instead: the variable with `_FILE` behind its name holds the file's path.

Made by `make docs` from `common/settings.py`; a test holds the two together.

| variable | default | meaning |
|---|---|---|
"""
MACHINE_DEPENDENT = {
    "home": "the user's data folder, e.g. `~/.local/share/firstread`",
    "decode_processes": "the number of cores, at most 8",
}


def settings_page() -> str:
    """Give the page's text."""
    rows = (
        f"| `FIRSTREAD_{name.upper()}` | {_default(name, field)} | {_meaning(field)} |"
        for name, field in Settings.model_fields.items()
    )
    return HEAD + "\n".join(rows) + "\n"


def _default(name: str, field: FieldInfo) -> str:
    if name in MACHINE_DEPENDENT:
        return MACHINE_DEPENDENT[name]
    value = field.default
    if value is PydanticUndefined or value is None or value in ("", (), {}):
        return "none"
    if isinstance(value, Path):
        return f"`{value}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _meaning(field: FieldInfo) -> str:
    says = (field.description or "").replace("|", "\\|")
    return f"{says} (secret)" if is_secret(field) else says


if __name__ == "__main__":
    sys.stdout.write(settings_page())
