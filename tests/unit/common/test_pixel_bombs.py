"""Small files that would decode to gigabytes: refused before memory is asked for."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from tests.radiographs import (
    DEFLATED_FRAME,
    ENCAPSULATED_UNCOMPRESSED,
    NATIVE,
    cells_of,
    encode,
    make_exposure,
    make_radiograph,
    write_radiograph,
)
from tests.unit.common.test_pixel_bounds import write_codestream

CODESTREAMS = {  # every syntax whose frames a decoder gets, and the one that ours are encoded in
    **{
        syntax: syntax
        for syntax in (
            *(JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1),
            *(JPEGLSLossless, JPEGLSNearLossless, JPEG2000Lossless, HTJ2K, HTJ2KLossless),
        )
    },
    UID("1.2.840.10008.1.2.4.53"): JPEGExtended12Bit,
    UID("1.2.840.10008.1.2.4.55"): JPEGExtended12Bit,
    JPEG2000: JPEG2000Lossless,
    HTJ2KLosslessRPCL: HTJ2KLossless,
}
HUGE = 0xFFFF
READ_ALL = """
import resource, sys
from pathlib import Path
from common.errors import FirstreadError
from common.pixels.header import read_header
from common.pixels.reading import read_pixels
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + (160 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sys.argv[1:]:
    try:
        read_pixels(path)
        print("READ", path)
    except FirstreadError as error:
        print(type(error).__name__, path)
peak = [line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
print(peak[0].split()[1])
"""


def read_in_little_memory(*paths: Path) -> tuple[list[str], int]:
    """Read files in a process that may take 160 MB more; give what each came to, and its peak."""
    command = [sys.executable, "-c", READ_ALL, *map(str, paths)]
    ended = subprocess.run(command, timeout=90, check=True, capture_output=True, text=True)
    *lines, peak_kb = ended.stdout.splitlines()
    return [line.split()[0] for line in lines], int(peak_kb) << 10


def declare(path: Path, **tags: int) -> Path:
    """Change what a file says of its pixels, and not its pixels."""
    dataset = dcmread(path)
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax == DEFLATED_FRAME:  # pydicom does not write under a name that it does not know
        dataset.file_meta.TransferSyntaxUID = ENCAPSULATED_UNCOMPRESSED
    dataset.save_as(path)
    if syntax == DEFLATED_FRAME:
        name_deflated(path)
    return path


def name_deflated(path: Path) -> None:
    """Give a file of encapsulated frames the name of deflated ones."""
    named = f"{DEFLATED_FRAME}\0".encode()
    path.write_bytes(path.read_bytes().replace(ENCAPSULATED_UNCOMPRESSED.encode(), named, 1))


def swollen(codestream: bytes, rows: int, columns: int) -> bytes:
    """Let a codestream's own header tell of a size that its data do not have."""
    changed = bytearray(codestream)
    if codestream.startswith(b"\xff\x4f"):
        struct.pack_into(">II", changed, 8, columns, rows)  # image
        struct.pack_into(">II", changed, 24, columns, rows)  # one tile of the same size
        return bytes(changed)
    for marker in (0xC0, 0xC1, 0xC2, 0xC3, 0xF7):
        at = codestream.find(bytes([0xFF, marker]))
        if at > 0:
            struct.pack_into(">HH", changed, at + 5, rows, columns)
            return bytes(changed)
    raise AssertionError("no frame header")


def exposure(syntax: UID) -> Dataset:
    bits = 8 if syntax == JPEGBaseline8Bit else 12
    return make_radiograph(make_exposure(bits), bits)


def code(dataset: Dataset, syntax: UID) -> bytes:
    return encode(cells_of(dataset), dataset, CODESTREAMS.get(syntax, syntax))


def test_a_declared_size_of_gigabytes_is_refused_whatever_the_syntax(tmp_path: Path) -> None:
    files = []
    for number, syntax in enumerate((*CODESTREAMS, RLELossless)):
        dataset = exposure(syntax)
        small = code(dataset, syntax)
        for kind, content in enumerate(
            (small, small if syntax == RLELossless else swollen(small, HUGE, HUGE))
        ):
            path = write_codestream(tmp_path / f"{number}-{kind}.dcm", dataset, content, syntax)
            files.append(declare(path, Rows=HUGE, Columns=HUGE))
    for number, syntax in enumerate((*NATIVE, ENCAPSULATED_UNCOMPRESSED, DEFLATED_FRAME)):
        path = write_radiograph(exposure(syntax), tmp_path / f"n{number}.dcm", syntax)
        files.append(declare(path, Rows=HUGE, Columns=HUGE))
    found, peak_bytes = read_in_little_memory(*files)
    assert found == ["OversizedImageError"] * len(files)
    assert peak_bytes < 400 << 20


def test_many_frames_are_refused(tmp_path: Path) -> None:
    path = write_radiograph(exposure(JPEG2000Lossless), tmp_path / "i.dcm")
    found, _ = read_in_little_memory(declare(path, NumberOfFrames=2_000_000_000))
    assert found == ["OversizedImageError"]


def test_a_codestream_that_is_larger_than_its_data_set_says_is_never_decoded(
    tmp_path: Path,
) -> None:
    files = []
    for number, syntax in enumerate(CODESTREAMS):
        dataset = exposure(syntax)
        bomb = swollen(code(dataset, syntax), HUGE, HUGE)
        files.append(write_codestream(tmp_path / f"{number}.dcm", dataset, bomb, syntax))
    found, peak_bytes = read_in_little_memory(*files)
    assert found == ["UnreadablePixelsError"] * len(files)
    assert peak_bytes < 400 << 20


def test_a_codestream_that_hides_behind_a_harmless_one_in_its_boxes_is_never_decoded(
    tmp_path: Path,
) -> None:
    dataset = exposure(JPEG2000Lossless)
    harmless = code(dataset, JPEG2000Lossless)
    bomb = swollen(harmless, 30_000, 30_000)
    signature = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
    kind = struct.pack(">L4s4sL4s", 20, b"ftyp", b"jp2 ", 0, b"jp2 ")
    decoy = struct.pack(">L4s", 8 + 120, b"free") + harmless[:120]
    image = struct.pack(">L4sIIHBBBB", 22, b"ihdr", 30_000, 30_000, 1, 11, 7, 0, 0)
    colour = struct.pack(">L4sBBBL", 15, b"colr", 1, 0, 0, 17)
    header = struct.pack(">L4s", 8 + len(image) + len(colour), b"jp2h") + image + colour
    boxes = signature + kind + decoy + header + struct.pack(">L4s", 8 + len(bomb), b"jp2c") + bomb
    path = write_codestream(tmp_path / "i.dcm", dataset, boxes, JPEG2000Lossless)
    found, peak_bytes = read_in_little_memory(path)
    assert found == ["UnreadablePixelsError"]
    assert peak_bytes < 400 << 20


def test_an_image_of_millions_of_tiles_is_refused_or_ends_within_its_memory(tmp_path: Path) -> None:
    dataset = exposure(JPEG2000Lossless)
    bomb = bytearray(swollen(code(dataset, JPEG2000Lossless), 7000, 9000))
    struct.pack_into(">II", bomb, 24, 1, 1)  # one tile a pixel
    path = write_codestream(tmp_path / "i.dcm", dataset, bytes(bomb), JPEG2000Lossless)
    found, peak_bytes = read_in_little_memory(declare(path, Rows=7000, Columns=9000))
    assert found == ["UnreadablePixelsError"]
    assert peak_bytes < 400 << 20


def test_run_lengths_of_a_gigabyte_are_refused(tmp_path: Path) -> None:
    dataset = make_radiograph(make_exposure(8), 8)
    bomb = struct.pack("<16I", 1, 64, *([0] * 14)) + b"\x81\x00" * 8_000_000
    path = write_codestream(tmp_path / "i.dcm", dataset, bomb, RLELossless)
    found, peak_bytes = read_in_little_memory(path)
    assert found == ["UnreadablePixelsError"]
    assert peak_bytes < 400 << 20


def test_a_deflated_frame_of_a_gigabyte_is_inflated_as_far_as_its_image(tmp_path: Path) -> None:
    dataset = make_radiograph(make_exposure(8), 8)
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = b"".join(deflater.compress(bytes(1 << 22)) for _ in range(250)) + deflater.flush()
    path = write_codestream(tmp_path / "i.dcm", dataset, bomb, ENCAPSULATED_UNCOMPRESSED)
    name_deflated(path)
    found, peak_bytes = read_in_little_memory(path)
    assert found == ["READ"]
    assert peak_bytes < 400 << 20


def test_an_irreversible_wavelet_without_quantisation_ends_no_process(tmp_path: Path) -> None:
    dataset = make_radiograph(make_exposure(12, (40, 30)), 12)
    files = []
    for at in (75, 83):
        harmed = bytearray(code(dataset, HTJ2KLossless))
        transform = harmed.index(b"\xff\x52") + 13
        assert harmed[transform] == 1
        harmed[transform], harmed[at] = 0, 0xFF
        path = tmp_path / f"{at}.dcm"
        files.append(write_codestream(path, dataset, bytes(harmed), HTJ2KLossless))
    found, _ = read_in_little_memory(*files)
    assert found == ["UnreadablePixelsError"] * len(files)


def test_a_second_frame_header_of_another_kind_ends_no_process(tmp_path: Path) -> None:
    files = []
    for number, syntax in enumerate((JPEGLossless, JPEGLosslessSV1, JPEGExtended12Bit)):
        dataset = make_radiograph(make_exposure(12, (40, 30)), 12)
        whole = code(dataset, syntax)
        assert whole.count(b"\xff\xc4") >= 1
        for kind in (0xC5, 0xC7, 0xC9, 0xCD, 0xCE, 0xCF):
            harmed = whole.replace(b"\xff\xc4", bytes([0xFF, kind]), 1)
            path = tmp_path / f"{number}-{kind}.dcm"
            files.append(write_codestream(path, dataset, harmed, syntax))
    found, _ = read_in_little_memory(*files)
    assert found == ["UnreadablePixelsError"] * len(files)
