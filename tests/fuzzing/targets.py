"""What fuzzers throw bytes at: each target takes any bytes and raises only for a defect."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from zoneinfo import ZoneInfo

from pydicom.uid import ExplicitVRLittleEndian

from common.archive import Archive
from common.errors import FirstreadError
from common.pixels.header import text
from common.pixels.reading import read_pixels
from dicom_listener.attributes import read_attributes, read_received_header
from dicom_listener.reception import Announced
from dicom_listener.wire import read_store_request, store_response
from tests.radiographs import NATIVE

Target = Callable[[bytes], None]
MAX_PIXELS = 1_000_000  # a fuzzer's images are small, and so is its patience

_memory = Path("/dev/shm")  # noqa: S108 - a folder in memory, below which one of our own is made
_place = tempfile.TemporaryDirectory(dir=_memory if _memory.is_dir() else None)
_folder = Path(_place.name)
_file = _folder / "object.dcm"
_archive = Archive(_folder / "archive")


def read_header_of(data: bytes) -> None:
    """Check a header: the first byte chooses the transfer syntax, the rest is the data set."""
    if not data:
        return
    syntax = NATIVE[data[0] % len(NATIVE)]
    sop_class = "1.2.840.10008.5.1.4.1.1.1"
    announced = Announced(sop_class, "1.2.3", sop_class, syntax, "AE")
    _file.write_bytes(announced.part10_head + data[1:])
    try:
        header = read_received_header(_file, announced)
        announced.sop_instance_uid = text(header, "SOPInstanceUID")
        attributes = read_attributes(header, announced, ZoneInfo("UTC"))
    except FirstreadError:
        return
    assert attributes.patient_id.isprintable() or "\0" not in attributes.patient_id
    assert len(attributes.patient_id) <= 64
    assert len(attributes.sop_instance_uid) <= 64


def read_pixels_of(data: bytes) -> None:
    """Decode a whole Part 10 file."""
    _file.write_bytes(data)
    try:
        image = read_pixels(_file, MAX_PIXELS)
    except FirstreadError:
        return
    assert image.size <= MAX_PIXELS
    assert 0 <= image.min() <= image.max() <= 1


def handle_uid(data: bytes) -> None:
    """Take bytes for a command, for its UIDs, and for a name in the archive."""
    request = read_store_request(data)
    if request is not None:
        response = store_response(1, request, request.sop_class_uid, 0xC000, "x")
        assert len(response) % 2 == 0
    text = data.decode("utf-8", "replace")
    announced = Announced(text, text, text, ExplicitVRLittleEndian, text)
    head = announced.part10_head if len(text) < 60_000 else b"DICM"
    assert b"DICM" in head
    try:
        path = _archive.path(text)
    except ValueError:  # outside, or no name at all: a null byte
        return
    except OSError:  # longer than a name may be
        return
    assert path.resolve().is_relative_to(_archive.root.resolve())


TARGETS: dict[str, Target] = {
    "header": read_header_of,
    "pixels": read_pixels_of,
    "uid": handle_uid,
}
