"""Retention by hand: the site's rule, with progress, under the account that runs it."""

import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import ConfigurationError
from common.retention import Retention, Summary
from common.settings import Settings
from firstread.ledger import Ledger

SAY_EVERY_STUDIES = 100


def retain_by_rule(settings: Settings, *, delete: bool, say: Callable[[str], None]) -> Summary:
    """Delete, or count, what the settings name.

    Raises:
        ConfigurationError: no rule is set, or others could read the archive.
    """
    if not (settings.retain_days or settings.retain_free_bytes):
        raise ConfigurationError(
            "No rule says what may go: set FIRSTREAD_RETAIN_DAYS or FIRSTREAD_RETAIN_FREE_BYTES"
        )
    if not settings.archive_path.is_dir():
        raise ConfigurationError(f"{settings.archive_path} is no folder: check FIRSTREAD_ARCHIVE")
    for sentence in open_folders(settings):
        say(f"warning: {sentence}")

    def progress(so_far: Summary) -> None:
        if so_far.studies and so_far.studies % SAY_EVERY_STUDIES == 0:
            say(f"{so_far.studies} studies, {so_far.size_bytes / 1e9:.2f} GB")

    with _retention(settings) as retention:
        return retention.run(delete=delete, progress=progress)


def confirm_file(settings: Settings, path: Path) -> int:
    """Note which objects the site's archive has committed to. Returns how many are new.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    try:
        uids = [line.strip() for line in path.read_text(encoding="ascii").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise ConfigurationError(f"--confirmed {path}: {reason}") from error
    with _retention(settings) as retention:
        return retention.confirm(uid for uid in uids if uid)


def open_folders(settings: Settings) -> list[str]:
    """Say which of the archive's folders others than its owner can enter."""
    archive = settings.archive_path
    found = []
    for folder in (archive, archive / "incoming", archive / "objects", archive / "renditions"):
        if folder.is_dir():
            mode = stat.S_IMODE(folder.stat().st_mode)
            if mode & 0o077:
                found.append(f"{folder} is open to others (mode {mode:04o}): chmod 700 {folder}")
    return found


@contextmanager
def _retention(settings: Settings) -> Iterator[Retention]:
    with Ledger(settings, statement_timeout_s=600) as ledger:
        yield Retention(ledger.sessions, settings, actor=ledger.actor)
