"""Read a data set's header, whatever a sender wrote into it."""

import logging
import math
import struct
import warnings
import zlib
from collections.abc import Sequence
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeGuard

from pydicom import config, dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset, read_preamble
from pydicom.tag import BaseTag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian
from pydicom.valuerep import PersonName

from common.errors import MalformedInstanceError

PHANTOM_CREATOR = "FIRSTREAD SIMULATOR"
PHANTOM_GROUP = 0x0019
PHANTOM_ELEMENT = 0x01
PHANTOM_VALUE = "PHANTOM"

# Everything that pydicom was seen to raise, or can raise, on bytes that are not what they claim.
PARSER_ERRORS = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

# The same where a value is converted: no file is read then, and an OSError is pydicom's own word
# for a sequence that ends too early.
VALUE_ERRORS = (*PARSER_ERRORS, OSError)

# A deflated header larger than this is no header; a small file could inflate to a thousand times.
_MAX_INFLATED_HEADER_BYTES = 64 << 20

config.settings.reading_validation_mode = config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # its warnings quote values of patients


class Header(Protocol):
    """What values are asked of: pydicom's data set, or whatever gives them by keyword."""

    def get(self, key: str, /) -> Any:  # noqa: ANN401 - as pydicom's
        """Give the value of an element, None if there is none."""
        ...


def read_header(path: str | PathLike[str]) -> Dataset:
    """Read everything of a DICOM file that comes before its pixels.

    A file without preamble is accepted. Values are converted when they are asked for, so that
    one broken value spoils nothing else: see ``text`` and ``integer``.

    Raises:
        MalformedInstanceError: not DICOM, or cut off within the header.
        OSError: the file cannot be opened or read.
    """
    return read_elements(path, None, _MAX_INFLATED_HEADER_BYTES)


def read_elements(
    path: str | PathLike[str], keywords: list[str] | None, max_inflated_bytes: int
) -> Dataset:
    """Read the elements with these keywords, or with None all that come before the pixels.

    Args:
        path: A DICOM file.
        keywords: DICOM keywords; others are skipped.
        max_inflated_bytes: A deflated data set is read this far and no further.
    """
    # Asked each time: whoever changed the filters since must not turn an odd value into a crash.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"pydicom\.")
    with Path(path).open("rb") as file:
        try:
            return _parse(file, keywords, max_inflated_bytes)
        except PARSER_ERRORS as error:
            raise MalformedInstanceError(
                f"not readable as DICOM ({type(error).__name__})"
            ) from error
        except OSError as error:
            if error.errno is not None:  # the disk's fault; pydicom's own carry no number
                raise
            raise MalformedInstanceError(
                f"not readable as DICOM ({type(error).__name__})"
            ) from error


def text(header: Header, keyword: str, default: str = "") -> str:
    """Return a value as stripped text, the first of several; the default if absent or broken."""
    values = texts(header, keyword)
    return values[0] if values and values[0] else default


def texts(header: Header, keyword: str) -> tuple[str, ...]:
    """Return all values of an element as stripped text; () if it is absent, empty or broken."""
    try:
        value = header.get(keyword)
        if value is None:
            return ()
        if type(value) is str:  # nearly always, where the listener asks
            return (value.strip(" \0"),)
        several = list(value) if _is_list(value) else [value]
        return tuple(str(one).strip(" \0") for one in several)
    except VALUE_ERRORS:
        return ()


def numbers(header: Header, keyword: str) -> tuple[float, ...]:
    """Return all values of an element as finite numbers; () if one of them is none."""
    try:
        found = tuple(float(one) for one in texts(header, keyword))
    except ValueError:
        return ()
    return found if all(map(math.isfinite, found)) else ()


def items(header: Header, keyword: str) -> list[Dataset]:
    """Return the items of a sequence; [] if it is absent or broken."""
    try:
        value = header.get(keyword)
        return [one for one in value or () if isinstance(one, Dataset)]
    except VALUE_ERRORS:
        return []


def is_phantom(header: Header) -> bool:
    """Say whether the simulator made this image: its private tag is there."""
    if not isinstance(header, Dataset):
        return False
    try:
        value = header.private_block(PHANTOM_GROUP, PHANTOM_CREATOR)[PHANTOM_ELEMENT].value
        written = value.decode("ascii") if isinstance(value, bytes) else str(value)
    except VALUE_ERRORS:
        return False
    return written.strip(" \0") == PHANTOM_VALUE


def transfer_syntax(header: Dataset) -> UID | None:
    """Return the transfer syntax that the file names; None if it names none."""
    meta = getattr(header, "file_meta", FileMetaDataset())
    named = text(meta, "TransferSyntaxUID")
    return UID(named) if named else None


def _parse(file: BinaryIO, keywords: list[str] | None, max_inflated_bytes: int) -> Dataset:
    read_preamble(file, force=True)
    meta = FileMetaDataset(read_dataset(file, False, True, stop_when=_after_meta))
    if text(meta, "TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read(), max_inflated_bytes)
        stop = _at_pixels if keywords is None else None
        header = read_dataset(BytesIO(inflated), False, True, stop_when=stop)
        header.file_meta = meta
        header.set_original_encoding(False, True)
    else:
        file.seek(0)
        header = dcmread(
            file, force=True, stop_before_pixels=keywords is None, specific_tags=keywords
        )
    if keywords is None and not any(
        keyword in header for keyword in ("SOPClassUID", "Modality", "Rows")
    ):
        raise MalformedInstanceError("not a DICOM data set")
    return header


def _after_meta(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag.group != 2


def _at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag in (0x7FE00008, 0x7FE00009, 0x7FE00010)


def _is_list(value: object) -> TypeGuard[Sequence[object]]:
    """Tell several values from one; a person's name can be iterated, letter by letter."""
    one = isinstance(value, str | bytes | PersonName)
    return not one and hasattr(value, "__iter__") and hasattr(value, "__len__")
