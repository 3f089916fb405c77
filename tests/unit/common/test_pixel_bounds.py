"""What a hostile or broken file costs: an error of ours, before it costs memory."""

import struct
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from common.errors import (
    FirstreadError,
    MalformedInstanceError,
    OversizedImageError,
    UnreadablePixelsError,
)
from common.pixels.codestreams import read_codestream_header
from common.pixels.header import is_phantom, read_header
from common.pixels.reading import read_pixels
from tests.radiographs import (
    LOSSLESS,
    encode,
    make_exposure,
    make_radiograph,
    put_compressed,
    write_radiograph,
)

EXPOSURE = make_exposure(12)
CODESTREAMS = (
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
    HTJ2KLossless,
    RLELossless,
)


def write_codestream(path: Path, dataset: Dataset, codestream: bytes, syntax: UID) -> Path:
    """Write a native data set, its pixels replaced, under a compressed transfer syntax."""
    write_radiograph(dataset, path)
    changed = dcmread(path)
    put_compressed(changed, codestream)
    changed.file_meta.TransferSyntaxUID = syntax
    changed.save_as(path)
    return path


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "not greyscale"),
        ({"PhotometricInterpretation": "YBR_FULL"}, "not greyscale"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "not greyscale"),
        ({"NumberOfFrames": 2}, "2 frames"),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "8 to 16 bit"),
        ({"BitsStored": 12, "HighBit": 5}, "8 to 16 bit"),
        ({"Rows": None}, "Rows"),
        ({"Rows": 0}, "impossible size"),
        ({"Rows": 151}, "bytes of pixels where"),
    ],
)
def test_what_is_not_one_greyscale_frame_is_refused(
    tmp_path: Path, tags: dict[str, object], message: str
) -> None:
    dataset = make_radiograph(EXPOSURE, 12)
    for keyword, value in tags.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    path = tmp_path / "i.dcm"
    write_as_is(dataset, path)
    with pytest.raises(UnreadablePixelsError, match=message):
        read_pixels(path)


def write_as_is(dataset: Dataset, path: Path) -> None:
    complete = make_radiograph(EXPOSURE, 12)
    write_radiograph(complete, path)
    dataset.file_meta = read_header(path).file_meta
    dataset.save_as(path, implicit_vr=False, little_endian=True, enforce_file_format=True)


def test_no_pixels_is_an_error(tmp_path: Path) -> None:
    dataset = make_radiograph(EXPOSURE, 12)
    del dataset.PixelData
    write_as_is(dataset, tmp_path / "i.dcm")
    with pytest.raises(UnreadablePixelsError, match="no pixel data"):
        read_pixels(tmp_path / "i.dcm")


def test_pixels_that_are_said_to_be_a_short_sequence_are_refused(tmp_path: Path) -> None:
    path = write_radiograph(make_radiograph(EXPOSURE, 12), tmp_path / "i.dcm")
    stands = b"\xe0\x7f\x10\x00OW\0\0"
    content = path.read_bytes()
    at = content.index(stands)
    path.write_bytes(content[:at] + stands.replace(b"OW", b"SQ") + b"\x04\0\0\x002026")
    with pytest.raises(UnreadablePixelsError):
        read_pixels(path)


@pytest.mark.parametrize("vr", [b"UT", b"UN", b"SQ", b"UC"])
def test_pixels_that_are_said_to_be_no_bytes_are_refused(tmp_path: Path, vr: bytes) -> None:
    path = write_radiograph(make_radiograph(EXPOSURE, 12), tmp_path / "i.dcm")
    content = path.read_bytes()
    assert content.count(b"\xe0\x7f\x10\x00OW") == 1
    path.write_bytes(content.replace(b"\xe0\x7f\x10\x00OW", b"\xe0\x7f\x10\x00" + vr))
    with pytest.raises(UnreadablePixelsError):
        read_pixels(path)


def test_more_pixels_than_allowed_are_not_decoded(tmp_path: Path) -> None:
    path = write_radiograph(make_radiograph(EXPOSURE, 12), tmp_path / "i.dcm")
    assert read_pixels(path, max_pixels=EXPOSURE.size).shape == EXPOSURE.shape
    with pytest.raises(OversizedImageError, match="more than the 17999"):
        read_pixels(path, max_pixels=EXPOSURE.size - 1)


@pytest.mark.parametrize("syntax", CODESTREAMS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.995])
def test_a_cut_codestream_is_an_error_not_half_an_image(
    tmp_path: Path, syntax: UID, share: float
) -> None:
    dataset = make_radiograph(EXPOSURE, 12)
    whole = encode(EXPOSURE, dataset, syntax)
    cut = whole[: int(len(whole) * share)]
    path = write_codestream(tmp_path / "i.dcm", dataset, cut, syntax)
    with pytest.raises(UnreadablePixelsError):
        read_pixels(path)


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_a_cut_file_is_an_error_not_half_an_image(
    tmp_path: Path, syntax: UID, share: float
) -> None:
    path = write_radiograph(make_radiograph(EXPOSURE, 12), tmp_path / "i.dcm", syntax)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(FirstreadError):
        read_pixels(path)


@pytest.mark.parametrize("syntax", [s for s in CODESTREAMS if s != RLELossless])
def test_a_codestream_of_another_size_than_declared_is_not_decoded(
    tmp_path: Path, syntax: UID
) -> None:
    dataset = make_radiograph(EXPOSURE, 12)
    other = encode(make_exposure(12, (300, 120)), dataset, syntax)
    path = write_codestream(tmp_path / "i.dcm", dataset, other, syntax)
    with pytest.raises(UnreadablePixelsError, match="300 x 120"):
        read_pixels(path)


@pytest.mark.parametrize(
    ("at", "value"), [(175, 0x80), (124, 0x7F)], ids=["all lines lost", "the last lines lost"]
)
def test_a_damaged_htj2k_codestream_is_an_error_not_a_black_image(
    tmp_path: Path, at: int, value: int
) -> None:
    dataset = make_radiograph(EXPOSURE, 12)
    damaged = bytearray(encode(EXPOSURE, dataset, HTJ2KLossless))
    assert damaged[at] != value
    damaged[at] = value
    path = write_codestream(tmp_path / "i.dcm", dataset, bytes(damaged), HTJ2KLossless)
    with pytest.raises(UnreadablePixelsError, match="decoded in part"):
        read_pixels(path)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, HTJ2KLossless])
@pytest.mark.parametrize(
    ("at", "value"),
    [
        *[(24, bytes(4)), (28, bytes(4)), (43, b"\0"), (44, b"\0")],  # sizes and steps of nothing
        *[(32, b"\x10\0\0\0"), (36, b"\0\0\0\x01")],  # tiles that begin behind the image
        (8, struct.pack(">6I", 7000, 9000, 0, 0, 30, 30)),  # 70,000 of them
        *[(8, b"\0\0\0\0"), (16, b"\xff\xff\xff\xff")],  # no image at all
    ],
)
def test_tiles_that_cannot_be_are_refused_before_a_decoder_divides_or_counts(
    syntax: UID, at: int, value: bytes
) -> None:
    codestream = encode(EXPOSURE, make_radiograph(EXPOSURE, 12), syntax)
    assert read_codestream_header(codestream).rows == len(EXPOSURE)
    changed = codestream[:at] + value + codestream[at + len(value) :]
    with pytest.raises(UnreadablePixelsError):
        read_codestream_header(changed)


def test_colour_within_a_greyscale_data_set_is_refused(tmp_path: Path) -> None:
    dataset = make_radiograph(make_exposure(8), 8)
    colour = imagecodecs.jpeg_encode(np.zeros((150, 120, 3), np.uint8))
    path = write_codestream(tmp_path / "i.dcm", dataset, bytes(colour), JPEGBaseline8Bit)
    with pytest.raises(UnreadablePixelsError, match="3 components"):
        read_pixels(path)


def test_run_lengths_that_swell_beyond_the_image_are_refused(tmp_path: Path) -> None:
    dataset = make_radiograph(make_exposure(8), 8)
    header = struct.pack("<16I", 1, 64, *([0] * 14))
    bomb = header + b"\x81\x00" * 2_000_000  # each pair means 128 zeros: 256 MB
    path = write_codestream(tmp_path / "i.dcm", dataset, bomb, RLELossless)
    with pytest.raises(UnreadablePixelsError):
        read_pixels(path)


READ_IN_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
from common.errors import FirstreadError
from common.pixels.reading import read_pixels
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + (160 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    read_pixels(sys.argv[1])
except FirstreadError:
    sys.exit(7)
"""


def test_a_deflated_bomb_is_not_inflated(tmp_path: Path) -> None:
    dataset = make_radiograph(EXPOSURE, 12)
    dataset.add_new(0x00091001, "OB", b"\0" * (300 << 20))
    path = write_radiograph(dataset, tmp_path / "i.dcm", DeflatedExplicitVRLittleEndian)
    assert path.stat().st_size < 1 << 20
    command = [sys.executable, "-c", READ_IN_LITTLE_MEMORY, str(path)]
    assert subprocess.run(command, timeout=60, check=False).returncode == 7


@pytest.mark.parametrize(
    "content", [b"", b"not DICOM at all, but a text", b"\0" * 132, b"\0" * 128 + b"DICM"]
)
def test_what_is_not_dicom_is_malformed(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "i.dcm"
    path.write_bytes(content)
    with pytest.raises(MalformedInstanceError):
        read_pixels(path)


def test_a_missing_file_is_no_fault_of_the_image(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_header(tmp_path / "nowhere.dcm")


def test_a_file_without_preamble_is_read(tmp_path: Path) -> None:
    path = write_radiograph(make_radiograph(EXPOSURE, 12), tmp_path / "i.dcm")
    path.write_bytes(path.read_bytes()[132:])
    assert read_pixels(path).shape == EXPOSURE.shape


def test_no_message_quotes_the_data_set(tmp_path: Path) -> None:
    path = write_radiograph(
        make_radiograph(EXPOSURE, 12, PatientName="Doe^Jane"), tmp_path / "i.dcm"
    )
    content = path.read_bytes().replace(
        b"\x28\x00\x10\x00US\x02\x00", b"\x28\x00\x10\x00US\x03\x00"
    )
    path.write_bytes(content)
    with pytest.raises(FirstreadError) as caught:
        read_pixels(path)
    assert "Doe" not in str(caught.value)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, LOSSLESS[0]])
def test_only_the_simulators_tag_makes_a_phantom(tmp_path: Path, syntax: UID) -> None:
    dataset = make_radiograph(EXPOSURE, 12)
    path = write_radiograph(dataset, tmp_path / "real.dcm", syntax)
    assert not is_phantom(read_header(path))
    dataset.private_block(0x0019, "SOMEONE ELSE", create=True).add_new(0x01, "LO", "PHANTOM")
    path = write_radiograph(dataset, tmp_path / "other.dcm", syntax)
    assert not is_phantom(read_header(path))
    block = dataset.private_block(0x0019, "FIRSTREAD SIMULATOR", create=True)
    block.add_new(0x01, "LO", "PHANTOM")
    path = write_radiograph(dataset, tmp_path / "phantom.dcm", syntax)
    assert is_phantom(read_header(path))
