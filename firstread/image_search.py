"""Find the images among the files and folders that a person names."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from common.pixels.image_files import is_image_file

IMAGE_SUFFIXES = ("", ".dcm", ".dicom", ".dic", ".png", ".jpg", ".jpeg")


def find_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Give files in input order, folders opened and sorted.

    Within a folder hidden files, DICOMDIR and what is no image by content or name are left out.
    """
    for path in paths:
        if path.is_dir():
            for entry in sorted(path.iterdir()):
                hidden = entry.name.startswith(".") or entry.name == "DICOMDIR"
                if entry.is_dir() and not hidden and not entry.is_symlink():
                    yield from find_files([entry])
                elif entry.is_file() and not hidden and _may_be_image(entry):
                    yield entry
        else:
            yield path


def _may_be_image(path: Path) -> bool:
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            start = file.read(132)
        return start.endswith(b"DICM") or is_image_file(path)
    except OSError:
        return True  # so that its line says why it cannot be read
