"""Sort the files that a person named by series; what cannot be read is told and left out."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.dataset import Dataset

from common.errors import FirstreadError
from common.pixels.header import read_header
from firstread.image_search import DICOM_SUFFIXES, find_files
from firstread.research_pipelines import Unit


@dataclass(slots=True)
class Found:
    """The files of some paths.

    Attributes:
        headers: of every file that is DICOM, in the order met.
        others: what is no DICOM by content and name, such as a letter.
        unreadable: a unit for each file that should be DICOM, or was named, and cannot be read.
    """

    headers: list[tuple[Path, Dataset]] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    unreadable: list[Unit] = field(default_factory=list)


def search_files(paths: Iterable[Path]) -> Found:
    """Read the header of each file once; one that cannot be read stops nothing."""
    found = Found()
    for path in find_files(paths):
        try:
            found.headers.append((path, read_header(path)))
        except FirstreadError as error:
            if path.suffix.lower() in DICOM_SUFFIXES or _claims_dicom(path):
                found.unreadable.append(Unit(path, (), failure=str(error)))
            else:
                found.others.append(path)
        except OSError as error:
            why = f"cannot be read: {error.strerror or error}"
            found.unreadable.append(Unit(path, (), failure=why))
    return found


def _claims_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132).endswith(b"DICM")
