"""Find out how a file is to be announced before its association is requested."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset, read_preamble
from pydicom.filewriter import write_file_meta_info
from pydicom.tag import BaseTag
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from common.errors import MalformedInstanceError
from common.pixels.header import PARSER_ERRORS, text

DEFAULT_CALLING_AE_TITLE = "FIRSTREAD_SCU"
_META_KEYWORDS = ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID")


@dataclass(frozen=True)
class Outgoing:
    """One file to send, who sends it, and what the request says that it is."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae_title: str = DEFAULT_CALLING_AE_TITLE
    has_meta: bool = True

    @property
    def context(self) -> tuple[str, str]:
        """SOP class and transfer syntax: what has to be agreed before it can be sent."""
        return self.sop_class_uid, self.transfer_syntax_uid


def find_files(paths: Iterable[Path]) -> list[Path]:
    """List files in the order given, folders in the order of their names, hidden files left out.

    Raises:
        FileNotFoundError: a path that is neither file nor folder.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = (one for one in sorted(path.rglob("*")) if one.is_file())
            found += [one for one in inside if not one.name.startswith(".")]
        elif path.is_file():
            found.append(path)
        else:
            raise FileNotFoundError(f"no such file or folder: {path}")
    return found


def read_outgoing(path: Path, calling_ae_title: str = DEFAULT_CALLING_AE_TITLE) -> Outgoing:
    """Read what a file is from its file meta, and where that is missing from its data set.

    Raises:
        MalformedInstanceError: it cannot be announced: not DICOM, no SOP class or no instance UID.
    """
    meta, offset = _split(path)
    named = [text(meta, keyword) for keyword in _META_KEYWORDS]
    if not all(named):
        header = _read_data_set(path)
        syntax = ImplicitVRLittleEndian if header.original_encoding[0] else ExplicitVRLittleEndian
        guesses = (text(header, "SOPClassUID"), text(header, "SOPInstanceUID"), str(syntax))
        named = [value or guess for value, guess in zip(named, guesses, strict=True)]
    if not all(named):
        raise MalformedInstanceError("names no SOP class or no SOP instance: not DICOM?")
    complete = offset > 0 and all(text(meta, keyword) for keyword in _META_KEYWORDS)
    return Outgoing(path, named[0], named[1], named[2], calling_ae_title, has_meta=complete)


def with_meta(outgoing: Outgoing, folder: Path) -> Outgoing:
    """Copy a file without file meta into ``folder`` with one; its data set stays as it is."""
    if outgoing.has_meta:
        return outgoing
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(outgoing.sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(outgoing.sop_instance_uid)
    meta.TransferSyntaxUID = UID(outgoing.transfer_syntax_uid)
    _, offset = _split(outgoing.path)
    copy = folder / f"{len(list(folder.iterdir()))}.dcm"
    buffer = DicomBytesIO()
    write_file_meta_info(buffer, meta, enforce_standard=False)
    data_set = outgoing.path.read_bytes()[offset:]
    copy.write_bytes(b"\0" * 128 + b"DICM" + buffer.getvalue() + data_set)
    return replace(outgoing, path=copy, has_meta=True)


def _split(path: Path) -> tuple[Dataset, int]:
    """Read the file meta, which may be empty, and find where the data set starts."""
    with path.open("rb") as file:
        try:
            read_preamble(file, force=True)
            meta = read_dataset(file, False, True, stop_when=_after_meta)
        except PARSER_ERRORS as error:
            raise MalformedInstanceError(f"not readable as DICOM: {error}") from error
        return meta, file.tell()


def _read_data_set(path: Path) -> Dataset:
    try:
        return dcmread(path, force=True, stop_before_pixels=True)
    except (*PARSER_ERRORS, OSError) as error:
        raise MalformedInstanceError(f"not readable as DICOM: {error}") from error


def _after_meta(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag.group != 2
