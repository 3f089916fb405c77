"""Find the images among the files and folders that a person names."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from common.pixels.image_files import is_image_file

DICOM_SUFFIXES = (".dcm", ".dicom", ".dic")
IMAGE_SUFFIXES = ("", *DICOM_SUFFIXES, ".png", ".jpg", ".jpeg")


def find_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Give files in input order, folders opened and sorted.

    Within a folder hidden files, DICOMDIR and what is no image by content or name are left out.
    A folder that cannot be opened, and a link that leads nowhere, are given as they are: whoever
    opens them learns why.
    """
    for path in paths:
        entries = _entries(path)
        if entries is None:
            yield path
            continue
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "DICOMDIR":
                continue
            if entry.is_dir():
                yield from find_files([] if entry.is_symlink() else [entry])
            elif (entry.is_file() or _leads_nowhere(entry)) and _may_be_image(entry):
                yield entry


def _entries(path: Path) -> list[Path] | None:
    """List a folder; None if the path is none, or cannot be opened."""
    try:
        return sorted(path.iterdir())
    except OSError:
        return None


def _leads_nowhere(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def _may_be_image(path: Path) -> bool:
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            start = file.read(132)
        return start.endswith(b"DICM") or is_image_file(path)
    except OSError:
        return True  # so that its line says why it cannot be read
