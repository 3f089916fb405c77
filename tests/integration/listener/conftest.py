"""A listener on the loopback and senders that speak to it."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, _config
from pynetdicom.association import Association

from common.settings import Settings
from dicom_listener.service import Listener
from tests.radiographs import make_exposure, make_radiograph

Listen = Callable[..., Settings]


@pytest.fixture(autouse=True)
def _send_files_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)


@pytest.fixture
def listen(settings: Settings) -> Iterator[Listen]:
    """Start listeners that are stopped after the test; give the settings that they run by."""
    with ExitStack() as running:

        def start(**changes: object) -> Settings:
            values = {"dicom_port": free_port(), "archive_reserve_bytes": 0, **changes}
            changed = settings.model_copy(update=values)
            running.enter_context(running_listener(changed))
            return changed

        yield start


@contextmanager
def running_listener(settings: Settings, *, direct: bool = True) -> Iterator[Listener]:
    """Run a listener in this process."""
    listener = Listener(settings, direct=direct)
    listener.start()
    try:
        yield listener
    finally:
        listener.stop(grace_s=5)


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def radiograph(**tags: object) -> Dataset:
    """Make a small chest radiograph of a patient."""
    return make_radiograph(
        make_exposure(shape=(24, 20)), 12, **{"PatientID": "P1", "PatientName": "A^B", **tags}
    )


@contextmanager
def association(
    settings: Settings,
    classes: dict[str, list[str]],
    *,
    ae_title: str = "SCANNER",
    called: str | None = None,
) -> Iterator[Association]:
    """Open an association that offers these classes and syntaxes."""
    sender = AE(ae_title=ae_title)
    sender.acse_timeout = sender.dimse_timeout = sender.network_timeout = 20
    for uid, syntaxes in classes.items():
        sender.add_requested_context(uid, syntaxes)
    opened = sender.associate(
        "127.0.0.1", settings.dicom_port, ae_title=called or settings.ae_title
    )
    try:
        yield opened
    finally:
        if opened.is_established:
            opened.release()


def send(settings: Settings, *datasets: Dataset, ae_title: str = "SCANNER") -> list[int]:
    """Send data sets in one association, Explicit VR Little Endian; give their statuses."""
    classes = {str(one.SOPClassUID): [str(ExplicitVRLittleEndian)] for one in datasets}
    with association(settings, classes, ae_title=ae_title) as opened:
        assert opened.is_established
        return [send_one(opened, dataset).Status for dataset in datasets]


def send_one(opened: Association, dataset: Dataset) -> Dataset:
    """Send what a caller holds in memory, with UIDs as they are, valid or not."""
    dataset = Dataset(dataset)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return opened.send_c_store(dataset)


def send_file(settings: Settings, path: Path, sop_class_uid: str, syntax: str) -> Dataset:
    """Send a file's data set byte for byte; give the response."""
    with association(settings, {sop_class_uid: [syntax]}) as opened:
        assert opened.is_established
        assert opened.accepted_contexts, f"{syntax} was not accepted"
        return opened.send_c_store(path)


def data_set_bytes(path: Path) -> bytes:
    """Give a Part 10 file's data set, without preamble and file meta."""
    content = path.read_bytes()
    length = int.from_bytes(content[140:144], "little")
    return content[144 + length :]
