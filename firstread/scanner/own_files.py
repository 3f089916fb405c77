"""Send one's own files: DICOM as it is, PNG and JPEG wrapped into DICOM first."""

import hashlib
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from common.errors import MalformedInstanceError, UnreadablePixelsError
from common.pixels.image_files import read_image_file
from firstread.scanner.data_sets import make_uid
from firstread.scanner.encodings import Encoding, quantise, set_pixels
from firstread.scanner.outgoing import (
    DEFAULT_CALLING_AE_TITLE,
    Outgoing,
    find_files,
    read_outgoing,
)
from firstread.scanner.send_log import Acknowledgement, SendLog
from firstread.scanner.sending import Destination, RetryPolicy, send

_PICTURES = (".png", ".jpg", ".jpeg")
_STORED = Encoding(ExplicitVRLittleEndian, "MONOCHROME2", 16)


@dataclass(frozen=True)
class Claims:
    """What the user says of pictures that cannot say it themselves; nothing is made up for them.

    With none of these, no pipeline takes the picture: it ends `not_eligible: view unknown`.

    Attributes:
        view_position: as in (0018,5101), PA for instance.
        body_part_examined: as in (0018,0015), CHEST for instance.
        age_years: of the patient.
    """

    view_position: str = ""
    body_part_examined: str = ""
    age_years: int | None = None


def wrap_picture(path: Path, folder: Path, claims: Claims) -> Path:
    """Write a PNG or JPEG as a 16-bit Computed Radiography object into ``folder``.

    The same picture with the same claims gets the same UIDs, so that it can be sent twice.

    Raises:
        UnreadablePixelsError: it is no picture that can be read as greyscale.
    """
    image = read_image_file(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    now = datetime.now(UTC)
    dataset = Dataset()
    dataset.SOPClassUID = ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = make_uid("picture", digest, claims)
    dataset.StudyInstanceUID = make_uid("picture", digest, claims, "study")
    dataset.SeriesInstanceUID = make_uid("picture", digest, claims, "series")
    dataset.StudyDate, dataset.StudyTime = f"{now:%Y%m%d}", f"{now:%H%M%S}"
    dataset.TimezoneOffsetFromUTC = "+0000"
    dataset.AccessionNumber, dataset.StudyID = "", ""
    dataset.Modality, dataset.Manufacturer = "CR", "Firstread"
    dataset.ConversionType = "DF"
    dataset.ReferringPhysicianName = ""
    dataset.PatientName = "UNNAMED^Picture"
    dataset.PatientID = f"PICTURE-{digest[:12].upper()}"
    dataset.PatientBirthDate, dataset.PatientSex = "", ""
    dataset.SeriesNumber, dataset.InstanceNumber = 1, 1
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    if claims.view_position:
        dataset.ViewPosition = claims.view_position
    if claims.body_part_examined:
        dataset.BodyPartExamined = claims.body_part_examined
    if claims.age_years is not None:
        dataset.PatientAge = f"{claims.age_years:03d}Y"
    # the window of the full range: the picture is shown as it is, and nothing is stretched
    dataset.WindowCenter, dataset.WindowWidth = "32768", "65536"
    dataset.file_meta = FileMetaDataset()
    set_pixels(dataset, quantise(image.astype(np.float64), _STORED), _STORED)
    wrapped = folder / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(wrapped, enforce_file_format=True)
    return wrapped


def send_paths(
    paths: Iterable[Path],
    destination: Destination,
    *,
    calling_ae_title: str = DEFAULT_CALLING_AE_TITLE,
    claims: Claims | None = None,
    log: SendLog | None = None,
    retry: RetryPolicy | None = None,
    on_answer: Callable[[Acknowledgement], None] | None = None,
    stop: threading.Event | None = None,
) -> list[Acknowledgement]:
    """Send files and folders; what cannot be announced is answered with a reason and no status.

    Args:
        paths: DICOM, PNG or JPEG files, or folders of them.
        destination: the receiver.
        calling_ae_title: under which name to send.
        claims: what the user says of PNG and JPEG files.
        log, retry, on_answer, stop: as for ``send``.

    Raises:
        FileNotFoundError: a path that does not exist; nothing was sent.
        UnreachableError: the receiver cannot be had.
    """
    files = find_files(paths)
    answers: list[Acknowledgement] = []
    source: dict[Path, Path] = {}

    def answer(acknowledgement: Acknowledgement) -> None:
        original = source.get(acknowledgement.path, acknowledgement.path)
        final = acknowledgement.model_copy(update={"path": original})
        answers.append(final)
        if log is not None:
            log.write(final)
        if on_answer is not None:
            on_answer(final)

    def announce(folder: Path) -> Iterator[Outgoing]:
        for file in files:
            try:
                sendable = file
                if file.suffix.lower() in _PICTURES:
                    sendable = wrap_picture(file, folder, claims or Claims())
                    source[sendable] = file
                yield read_outgoing(sendable, calling_ae_title)
            except (MalformedInstanceError, UnreadablePixelsError) as error:
                answer(Acknowledgement.unsent(file, str(error), str(destination)))

    with tempfile.TemporaryDirectory(prefix="firstread-wrapped-") as folder:
        send(announce(Path(folder)), destination, retry=retry, on_answer=answer, stop=stop)
    return answers
