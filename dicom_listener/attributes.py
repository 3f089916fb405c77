"""What the ledger keeps of one received object, read from its header and made fit for columns."""

import hashlib
import re
import warnings
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

from pydicom.filereader import read_dataset
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from common.errors import ClassMismatchError, InvalidUidError, MalformedInstanceError
from common.pixels.header import PARSER_ERRORS, PHANTOM_GROUP, Header, items, text, texts
from common.ranking import ORDER_WORDS
from common.states import OrderPriority
from dicom_listener.acquisition import acquired_at
from dicom_listener.header_walk import FileSource, InflatedSource, Picked
from dicom_listener.plain_header import plain_header
from dicom_listener.reception import Announced

_KEYWORDS = (
    "SpecificCharacterSet",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "IssuerOfPatientID",
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "AccessionNumber",
    "StudyDescription",
    "StudyDate",
    "StudyTime",
    "SeriesDate",
    "SeriesTime",
    "AcquisitionDate",
    "AcquisitionTime",
    "AcquisitionDateTime",
    "TimezoneOffsetFromUTC",
    "RequestedProcedurePriority",
    "StudyPriorityID",
    "RequestAttributesSequence",
    "Modality",
    "BodyPartExamined",
    "SeriesDescription",
    "InstanceNumber",
    "ViewPosition",
)
# The simulator's mark is looked for in the private block that a first creator gets.
_PRIVATE = (f"{PHANTOM_GROUP:04x}0010", f"{PHANTOM_GROUP:04x}1001")
_TAGS = frozenset(Tag(word) for word in (*_KEYWORDS, *_PRIVATE))
# Leading zeros are against PS3.5 section 9 too, but some devices make such UIDs and mean them.
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_URGENCY = (OrderPriority.STAT, OrderPriority.URGENT, OrderPriority.ROUTINE)


class Attributes(NamedTuple):
    """One object's identity and the text around it; every string fits its column."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    issuer_of_patient_id: str  # "" if none was sent
    patient_id: str  # "" if none was sent
    patient_name: str
    patient_birth_date: str
    patient_sex: str
    patient_age: str
    accession_number: str
    study_description: str
    study_date: str
    study_time: str
    acquired_at: datetime | None
    requested_procedure_priority: str
    study_priority_id: str
    modality: str
    body_part_examined: str
    series_description: str
    instance_number: int | None
    view_position: str


def read_received_header(
    path: Path, announced: Announced, head: bytes = b"", size_bytes: int | None = None
) -> Header:
    """Read the few elements that the listener needs; the rest is passed over, not held.

    Args:
        path: The Part 10 file as the listener wrote it.
        announced: What its head and encoding follow from.
        head: The first bytes of the data set, if they are at hand.
        size_bytes: How long the data set is, if that is known.

    Raises:
        MalformedInstanceError: not a data set in the announced transfer syntax.
        OSError: the file cannot be read.
    """
    little_endian = announced.transfer_syntax_uid != ExplicitVRBigEndian
    start = len(announced.part10_head)
    try:
        with closing(
            InflatedSource(path, start)
            if announced.transfer_syntax_uid == DeflatedExplicitVRLittleEndian
            else FileSource(path, start, head, size_bytes)
        ) as source:
            picked = Picked(source, _TAGS, little_endian=little_endian)
        plain = plain_header(picked)
        if plain is not None:
            return plain
        warnings.filterwarnings("ignore", category=UserWarning, module=r"pydicom\.")
        return read_dataset(BytesIO(picked.elements), picked.implicit, little_endian)
    except (EOFError, *PARSER_ERRORS) as error:
        raise MalformedInstanceError("data set cannot be parsed") from error
    except OSError as error:
        if error.errno is not None:  # the disk's fault; pydicom's own carry no number
            raise
        raise MalformedInstanceError("data set ends too early") from error


def read_attributes(header: Header, announced: Announced, zone: ZoneInfo) -> Attributes:
    """Check a header against what was announced and keep what the ledger needs.

    Nothing about text can refuse an object: what is too long is clipped, what cannot be decoded
    or stored is replaced.

    Raises:
        MalformedInstanceError: no SOP, study or series UID.
        InvalidUidError: one of them is no UID.
        ClassMismatchError: class or instance are not the announced ones.
    """
    uids = {
        keyword: text(header, keyword)
        for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
    }
    _check_uid("Affected SOP Instance UID", announced.sop_instance_uid)
    for keyword, uid in uids.items():
        if not uid:
            raise MalformedInstanceError(f"no {keyword}")
        _check_uid(keyword, uid)
    if not uids["SOPClassUID"] == announced.sop_class_uid == announced.context_class_uid:
        raise ClassMismatchError("SOP class is not the announced one")
    if uids["SOPInstanceUID"] != announced.sop_instance_uid:
        raise ClassMismatchError("SOP Instance UID is not the announced one")
    return Attributes(
        sop_class_uid=uids["SOPClassUID"],
        sop_instance_uid=uids["SOPInstanceUID"],
        study_instance_uid=uids["StudyInstanceUID"],
        series_instance_uid=uids["SeriesInstanceUID"],
        issuer_of_patient_id=_identifier(header, "IssuerOfPatientID"),
        patient_id=_identifier(header, "PatientID"),
        patient_name=_column(header, "PatientName", 400),
        patient_birth_date=_column(header, "PatientBirthDate", 8),
        patient_sex=_column(header, "PatientSex", 16),
        patient_age=_column(header, "PatientAge", 16),
        accession_number=_column(header, "AccessionNumber", 64),
        study_description=_column(header, "StudyDescription", 400),
        study_date=_column(header, "StudyDate", 32),
        study_time=_column(header, "StudyTime", 32),
        acquired_at=acquired_at(header, zone),
        requested_procedure_priority=_requested_procedure_priority(header),
        study_priority_id=_column(header, "StudyPriorityID", 32),
        modality=_column(header, "Modality", 16),
        body_part_examined=_column(header, "BodyPartExamined", 400),
        series_description=_column(header, "SeriesDescription", 400),
        instance_number=_integer(header, "InstanceNumber"),
        view_position=_column(header, "ViewPosition", 16),
    )


def urgency(word: str) -> int:
    """Order the words that devices send for a priority: 0 is STAT, unknown words come last."""
    priority = ORDER_WORDS.get(word.strip().upper())
    return len(_URGENCY) if priority is None else _URGENCY.index(priority)


def is_uid(value: str) -> bool:
    """Say whether it is a UID, with such leading zeros as some devices write."""
    return len(value) <= 64 and _UID.fullmatch(value) is not None


def _check_uid(keyword: str, uid: str) -> None:
    if not is_uid(uid):
        raise InvalidUidError(f"{keyword} is no UID")


def _requested_procedure_priority(header: Header) -> str:
    """Find (0040,1003) at the top or in the request attributes: the most urgent that is stated."""

    def stated() -> Iterator[str]:
        yield _column(header, "RequestedProcedurePriority", 32)
        for item in items(header, "RequestAttributesSequence"):
            yield _column(item, "RequestedProcedurePriority", 32)

    return min((word for word in stated() if word), key=urgency, default="")


def _identifier(header: Header, keyword: str) -> str:
    """Give an identifier of at most 64 characters, in which two that differ stay different."""
    value = _storable("\\".join(texts(header, keyword)))
    if len(value) <= 64:
        return value
    return value[:47] + "~" + hashlib.sha256(value.encode()).hexdigest()[:16]


def _column(header: Header, keyword: str, length: int) -> str:
    return _storable(text(header, keyword))[:length]


def _storable(value: str) -> str:
    """Drop what Postgres' UTF-8 cannot hold."""
    if not value.isascii():
        value = value.encode("utf-8", "replace").decode("utf-8")
    return value.replace("\0", "").strip()


def _integer(header: Header, keyword: str) -> int | None:
    try:
        number = int(text(header, keyword))
    except ValueError:
        return None
    return number if abs(number) < 1 << 31 else None
