"""Real DICOM objects from many devices: each is stored as sent, or refused with a stated status."""

import csv
import hashlib
from collections import Counter
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pynetdicom import _config
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from common.archive import Archive
from common.pixels.header import text
from common.settings import Settings
from common.tables import Instance
from dicom_listener.contexts import storage_classes, transfer_syntaxes
from dicom_listener.statuses import StoreStatus
from tests.integration.listener.conftest import (
    association,
    data_set_bytes,
    free_port,
    running_listener,
)

pytestmark = pytest.mark.data
META = ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID")


def sendable(folder: Path) -> list[tuple[Path, str, str]]:
    """List the files whose meta information says what a sender must announce."""
    with (folder / "manifest.csv").open() as manifest:
        names = [row["file"] for row in csv.DictReader(manifest) if row["has_part10_header"] == "1"]
    found = []
    for name in names:
        try:
            meta = dcmread(folder / name, stop_before_pixels=True).file_meta
        except (InvalidDicomError, EOFError, OSError, ValueError):
            continue
        sop_class, instance, syntax = (text(meta, keyword) for keyword in META)
        if instance and sop_class in storage_classes() and syntax in transfer_syntaxes():
            found.append((folder / name, sop_class, syntax))
    return found


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_real_object_is_stored_as_sent_or_refused_with_a_reason(
    settings: Settings,
    sessions: sessionmaker[Session],
    test_data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)
    listening = settings.model_copy(update={"dicom_port": free_port(), "archive_reserve_bytes": 0})
    statuses: Counter[StoreStatus] = Counter()
    acknowledged: set[bytes] = set()
    files = sendable(test_data / "dicom")
    with running_listener(listening):
        for path, sop_class, syntax in files:
            with association(listening, {sop_class: [syntax]}) as opened:
                response = opened.send_c_store(path)
            assert "Status" in response, f"{path.name}: no answer"
            status = StoreStatus(response.Status)
            statuses[status] += 1
            if status is StoreStatus.SUCCESS:
                acknowledged.add(hashlib.sha256(data_set_bytes(path)).digest())
    archive = Archive(listening.archive_path)
    kept = {
        hashlib.sha256(data_set_bytes(path)).digest(): path
        for path in (archive.root / "objects").rglob("*.dcm")
    }
    assert acknowledged <= set(kept)
    with sessions() as session:
        registered = session.execute(select(Instance.sha256, Instance.path)).all()
    assert all(kept[row.sha256] == archive.path(row.path) for row in registered)
    assert set(statuses) <= {
        StoreStatus.SUCCESS,
        StoreStatus.CONFLICT,
        StoreStatus.CLASS_MISMATCH,
        StoreStatus.CANNOT_UNDERSTAND,
        StoreStatus.INVALID_UID,
    }
    assert statuses[StoreStatus.SUCCESS] > 250
    assert statuses.total() == len(files) > 350
