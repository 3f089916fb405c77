"""A new version of a bundle: other fields around the same weights."""

import shutil
from pathlib import Path
from typing import Any

from common.errors import ConfigurationError
from model.bundles import CARD, DESCRIPTION, WEIGHTS, Bundle, write_description


def next_version(bundle: Bundle) -> str:
    """Give the version with its last number raised by one."""
    major, minor, patch = bundle.version.split(".")
    return f"{major}.{minor}.{int(patch) + 1}"


def write_new_version(
    bundle: Bundle, folder: Path, changes: dict[str, Any], card_section: str
) -> Bundle:
    """Copy a bundle with changed fields; its card keeps its text and gains a section.

    Args:
        bundle: Is left as it is.
        folder: Of the new one; must not hold one.
        changes: Fields of ``Bundle``, ``version`` among them.
        card_section: Markdown, from its heading.

    Raises:
        ConfigurationError: the folder holds a bundle, or the version is the old one.
    """
    if (folder / DESCRIPTION).exists():
        raise ConfigurationError(f"{folder} holds a bundle already; name another folder")
    if changes["version"] == bundle.version:
        raise ConfigurationError(f"{bundle.version} is the version it has; a new one needs a new")
    folder.mkdir(parents=True, exist_ok=True)
    further = sorted(bundle.files.keys() - {WEIGHTS, CARD})
    for name in (WEIGHTS, *further):
        shutil.copyfile(bundle.folder / name, folder / name)
    card = (bundle.folder / CARD).read_text(encoding="utf-8").rstrip()
    (folder / CARD).write_text(f"{card}\n\n{card_section.rstrip()}\n", encoding="utf-8")
    fields = bundle.model_dump(exclude={"files", "folder", "sha256"})
    return write_description(folder, {**fields, **changes}, further)
