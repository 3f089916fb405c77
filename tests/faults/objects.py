"""Small radiographs, one after the other, each with UIDs and pixels of its own."""

import hashlib
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from common.pixels.header import (
    PHANTOM_CREATOR,
    PHANTOM_ELEMENT,
    PHANTOM_GROUP,
    PHANTOM_VALUE,
)
from tests.radiographs import make_exposure, make_radiograph, write_radiograph

SIDE = 64
PIXEL_BYTES = SIDE * SIDE * 2
FIRST_NUMBER = 10_000  # below lie the numbers that worker_parts' model chokes on
UIDS = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


@dataclass(frozen=True)
class Sent:
    """One object given to a sender. sha256: of its data set."""

    number: int
    sop_instance_uid: str
    study_instance_uid: str
    path: Path
    sha256: bytes


class Objects:
    """Write DICOM files into a folder, as many as are asked for; threads may share it."""

    def __init__(
        self,
        folder: Path,
        *,
        images_per_study: int = 1,
        is_phantom: bool = False,
        **tags: object,
    ) -> None:
        """Make the folder and what all of them have in common.

        Args:
            folder: Where the files go.
            images_per_study: So many in a row share a study and a series.
            is_phantom: They bear the simulator's mark: the phantom pipeline takes them.
            tags: More of the data set, by keyword.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.images_per_study = images_per_study
        self.made: dict[str, Sent] = {}  # by SOP Instance UID
        self._root = f"2.25.{secrets.randbelow(10**20):020d}"
        self._number = FIRST_NUMBER
        self._lock = Lock()
        marks = {name: f"{self._root}1{index}{0:09d}" for index, name in enumerate(UIDS)}
        with tempfile.TemporaryDirectory() as scratch:
            template = make_radiograph(
                make_exposure(shape=(SIDE, SIDE)),
                12,
                **{"PatientID": "FAULT0000000", "PatientName": "FAULT^SUITE", **marks, **tags},
            )
            if is_phantom:
                block = template.private_block(PHANTOM_GROUP, PHANTOM_CREATOR, create=True)
                block.add_new(PHANTOM_ELEMENT, "LO", PHANTOM_VALUE)
            self._template = write_radiograph(template, Path(scratch) / "0.dcm").read_bytes()
        self._marks = marks
        assert len(self._template[_pixels_at(self._template) :]) == PIXEL_BYTES

    def make(self, number: int | None = None) -> Sent:
        """Write one more. Its number stands in its first two pixels."""
        with self._lock:
            serial = self._number
            self._number += 1
        number = serial if number is None else number
        of_study = serial // self.images_per_study
        serials = {"SOPInstanceUID": serial, "StudyInstanceUID": of_study}
        content = self._template.replace(b"FAULT0000000", f"FAULT{of_study:07d}".encode())
        uids = {}
        for index, name in enumerate(UIDS):
            uids[name] = f"{self._root}1{index}{serials.get(name, of_study):09d}"
            content = content.replace(self._marks[name].encode(), uids[name].encode())
        at = _pixels_at(content)
        content = content[:at] + number.to_bytes(4, "little") + content[at + 4 :]
        path = self.folder / f"{serial}.dcm"
        path.write_bytes(content)
        made = Sent(
            number,
            uids["SOPInstanceUID"],
            uids["StudyInstanceUID"],
            path,
            hashlib.sha256(data_set(content)).digest(),
        )
        with self._lock:
            self.made[made.sop_instance_uid] = made
        return made


def fixed_uids() -> dict[str, str]:
    """Give the same UIDs each time: what a seed harms hangs on where an element stands."""
    return {name: f"2.25.{index}{0:029d}" for index, name in enumerate(UIDS, 1)}


def read_number(content: bytes) -> int:
    """Read an object's number from the bytes of its file."""
    at = _pixels_at(content)
    return int.from_bytes(content[at : at + 4], "little")


def data_set(content: bytes) -> bytes:
    """Give a Part 10 file's data set, without preamble and file meta information."""
    return content[144 + int.from_bytes(content[140:144], "little") :]


def _pixels_at(content: bytes) -> int:
    return len(content) - PIXEL_BYTES
