"""What the listener reads of a header: as pydicom does, whatever lies around, in little memory."""

import random
import struct
import subprocess
import sys
import zlib
from contextlib import closing
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from common.errors import MalformedInstanceError
from common.pixels.header import text
from dicom_listener.attributes import _TAGS, read_received_header
from dicom_listener.header_walk import FileSource, Picked
from dicom_listener.reception import Announced
from tests.integration.listener.conftest import data_set_bytes, radiograph
from tests.mutations import mutate_object
from tests.radiographs import NATIVE, write_radiograph


def received(
    folder: Path, data: bytes, syntax: UID = ExplicitVRLittleEndian
) -> tuple[Path, Announced]:
    """Lay a data set down as the listener does."""
    announced = Announced("1.2.3", "1.2.4", "1.2.3", syntax, "AE")
    path = folder / "received.dcm"
    path.write_bytes(announced.part10_head + data)
    return path, announced


def with_sequences(*, undefined: bool) -> Dataset:
    """Make an object with the wanted sequence, and with nested ones that nobody wants."""
    inner = Dataset()
    inner.RequestedProcedurePriority = "STAT"
    deep = Dataset()
    deep.ReferencedSOPInstanceUID = "1.2.3"
    item = Dataset()
    item.ReferencedImageSequence = Sequence([deep, deep])
    dataset = radiograph(PatientName="Müller^Jörg", SpecificCharacterSet="ISO_IR 100")
    dataset.RequestAttributesSequence = Sequence([inner])
    dataset.ReferencedStudySequence = Sequence([item, item])
    dataset.add_new(0x00190010, "LO", "FIRSTREAD SIMULATOR")
    dataset.add_new(0x00191001, "LO", "PHANTOM")
    for keyword in ("RequestAttributesSequence", "ReferencedStudySequence"):
        dataset[keyword].is_undefined_length = undefined
        for one in dataset[keyword].value:
            one.is_undefined_length_sequence_item = undefined
    return dataset


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize("undefined", [True, False])
def test_the_wanted_elements_are_what_pydicom_reads(
    tmp_path: Path, syntax: UID, undefined: bool
) -> None:
    file = write_radiograph(with_sequences(undefined=undefined), tmp_path / "i.dcm", syntax)
    header = read_received_header(*received(tmp_path, data_set_bytes(file), syntax))
    assert isinstance(header, Dataset)
    whole = dcmread(file)
    wanted = [element.keyword for element in header if element.keyword]
    assert {"PatientName", "StudyInstanceUID", "RequestAttributesSequence"} <= set(wanted)
    assert "ReferencedStudySequence" not in header
    assert "PixelData" not in header
    for keyword in wanted:
        assert header[keyword].value == whole[keyword].value
    assert header[0x00191001].value in ("PHANTOM", b"PHANTOM ")


def test_an_encoding_that_was_not_announced_is_understood(tmp_path: Path) -> None:
    file = write_radiograph(radiograph(), tmp_path / "i.dcm", ImplicitVRLittleEndian)
    header = read_received_header(*received(tmp_path, data_set_bytes(file)))
    assert text(header, "PatientID") == "P1"


def test_a_harmed_header_is_read_or_malformed_and_nothing_else(tmp_path: Path) -> None:
    file = write_radiograph(with_sequences(undefined=True), tmp_path / "i.dcm")
    data, refused = data_set_bytes(file), 0
    for seed in range(300):
        harmed = mutate_object(data, random.Random(seed))
        try:
            read_received_header(*received(tmp_path, harmed))
        except MalformedInstanceError:
            refused += 1
    assert 20 < refused < 280


def picked(path: Path, start: int, head: bytes) -> object:
    """Say all that is picked from a data set, or why it is refused."""
    with closing(FileSource(path, start, head)) as source:
        try:
            found = Picked(source, _TAGS, little_endian=True)
        except (EOFError, MalformedInstanceError) as error:
            return type(error)
    return found.elements, found.values, found.implicit, found.has_sequences


def test_what_is_at_hand_changes_nothing_but_the_time_it_takes(tmp_path: Path) -> None:
    chooser, differing = random.Random(20261127), set()
    for undefined in (False, True):
        whole = data_set_bytes(
            write_radiograph(with_sequences(undefined=undefined), tmp_path / "whole.dcm")
        )
        for number in range(400):
            data = mutate_object(whole, chooser) if number else whole
            path, announced = received(tmp_path, data)
            start = len(announced.part10_head)
            by_reading = picked(path, start, b"")
            for length in (12, chooser.randint(0, 1000), 1 << 15):
                assert picked(path, start, data[:length]) == by_reading
            differing.add(repr(by_reading))
    assert len(differing) > 100


IN_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
from common.errors import MalformedInstanceError
from common.pixels.header import text
from dicom_listener.attributes import read_received_header
from dicom_listener.reception import Announced
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + (48 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
announced = Announced("1.2.3", "1.2.4", "1.2.3", sys.argv[2], "AE")
try:
    print("read", len(read_received_header(Path(sys.argv[1]), announced)))
except MalformedInstanceError:
    print("refused")
"""


def read_in_little_memory(path: Path, syntax: UID) -> str:
    """Read a header in a process that may take 48 MB more than it starts with."""
    command = [sys.executable, "-c", IN_LITTLE_MEMORY, str(path), syntax]
    ended = subprocess.run(command, timeout=60, check=True, capture_output=True, text=True)
    return ended.stdout.strip()


def explicit(group: int, element: int, vr: bytes, value: bytes) -> bytes:
    """Write an element with a long length."""
    return struct.pack("<HH2sHL", group, element, vr, 0, len(value)) + value


def deflated(parts: list[bytes]) -> bytes:
    """Deflate without holding it all."""
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return b"".join([*(deflater.compress(part) for part in parts), deflater.flush()])


def test_a_deflated_data_set_of_gigabytes_is_refused_in_little_memory(tmp_path: Path) -> None:
    zeros = bytes(1 << 22)
    head = struct.pack("<HH2sHL", 0x0009, 0x1001, b"OB", 0, 0xFFFFFFFE)
    path, _ = received(tmp_path, deflated([head, *[zeros] * 25]), DeflatedExplicitVRLittleEndian)
    assert path.stat().st_size < 1 << 20
    assert read_in_little_memory(path, DeflatedExplicitVRLittleEndian) == "refused"


def test_a_deflated_swarm_of_small_elements_is_passed_over_in_little_memory(
    tmp_path: Path,
) -> None:
    swarm = b"".join(
        struct.pack("<HH2sH", 0x0021 + 2 * (number >> 15), 0x1000 + number % 0x8000, b"LO", 0)
        for number in range(200_000)
    )
    path, _ = received(tmp_path, deflated([swarm]), DeflatedExplicitVRLittleEndian)
    assert read_in_little_memory(path, DeflatedExplicitVRLittleEndian) == "read 0"


def test_a_sequence_of_millions_of_elements_is_passed_over_in_little_memory(
    tmp_path: Path,
) -> None:
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    item += struct.pack("<HH2sH", 0x0008, 0x0060, b"CS", 0) * 50
    item += struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
    sequence = struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + item * 10_000
    sequence += struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    patient = struct.pack("<HH2sH", 0x0010, 0x0020, b"LO", 2) + b"P1"
    for content in (sequence + patient, sequence.replace(b"\x08\0\x40\x11", b"\x40\0\x75\x02", 1)):
        path, _ = received(tmp_path, content)
        assert read_in_little_memory(path, ExplicitVRLittleEndian).startswith("read")


def test_a_name_that_is_said_again_and_again_is_refused_in_little_memory(tmp_path: Path) -> None:
    name = struct.pack("<HHL", 0x0010, 0x0010, 0xFFF0) + b"A" * 0xFFF0
    content = struct.pack("<HHL", 0x0008, 0x0060, 2) + b"CR" + name * 2000
    path, _ = received(tmp_path, content, ImplicitVRLittleEndian)
    assert read_in_little_memory(path, ImplicitVRLittleEndian) == "refused"


def test_elements_without_end_are_refused(tmp_path: Path) -> None:
    swarm = struct.pack("<HH2sH", 0x0021, 0x1000, b"LO", 0) * 2_000_001
    with pytest.raises(MalformedInstanceError):
        read_received_header(*received(tmp_path, swarm))


def test_a_name_of_a_hundred_megabytes_is_cut(tmp_path: Path) -> None:
    name = struct.pack("<HHL", 0x0010, 0x0010, 100 << 20) + b"A" * (100 << 20)
    content = struct.pack("<HHL", 0x0008, 0x0060, 2) + b"CR" + name
    path, _ = received(tmp_path, content, ImplicitVRLittleEndian)
    assert read_in_little_memory(path, ImplicitVRLittleEndian) == "read 2"


def test_sequences_within_sequences_without_end_are_refused(tmp_path: Path) -> None:
    start = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    for depth in (100, 100_000):
        with pytest.raises(MalformedInstanceError):
            read_received_header(*received(tmp_path, start * depth))


def test_lengths_beyond_the_end_are_refused(tmp_path: Path) -> None:
    for length in (1, 1 << 31, 0xFFFFFFFE):
        data = explicit(0x0008, 0x0018, b"UN", b"")[:-4] + struct.pack("<L", length)
        path = tmp_path / "data"
        path.write_bytes(data)
        for head in (b"", data):
            for wanted in ({0x00080018}, set[int]()):
                with closing(FileSource(path, 0, head)) as source, pytest.raises(EOFError):
                    Picked(source, wanted, little_endian=True)
