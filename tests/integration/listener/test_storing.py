"""What is sent is stored as sent, registered once, and answered with the truth."""

import struct
import warnings
from pathlib import Path

import pytest
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from common.archive import Archive
from common.states import AnalysisState
from common.tables import Analysis, Instance, Patient, Study, WorklistItem
from dicom_listener.buffered_socket import BufferedSocket
from dicom_listener.contexts import storage_classes, transfer_syntaxes
from dicom_listener.statuses import StoreStatus
from tests.integration.listener.conftest import (
    Listen,
    association,
    data_set_bytes,
    radiograph,
    send,
    send_file,
)
from tests.radiographs import LOSSLESS, write_radiograph
from tests.waiting import eventually

VERIFICATION = "1.2.840.10008.1.1"


def test_an_echo_is_answered(listen: Listen) -> None:
    with association(listen(), {VERIFICATION: ["1.2.840.10008.1.2"]}) as opened:
        assert opened.send_c_echo().Status == StoreStatus.SUCCESS


def test_a_stored_radiograph_is_queued_and_on_the_worklist(
    listen: Listen, sessions: sessionmaker[Session]
) -> None:
    dataset = radiograph(RequestedProcedurePriority="STAT", AccessionNumber="A-7")
    assert send(listen(), dataset) == [StoreStatus.SUCCESS]
    with sessions() as session:
        analysis = session.execute(select(Analysis)).scalar_one()
        item = session.execute(select(WorklistItem)).scalar_one()
        study = session.execute(select(Study)).scalar_one()
    assert (analysis.pipeline, analysis.state) == ("chest_xray", AnalysisState.QUEUED)
    assert (analysis.band, analysis.due_at) == (item.band, item.due_at) == (0, item.due_at)
    assert study.accession_number == "A-7"
    assert item.listed
    assert not item.settled


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda uid: UID(uid).name)
def test_each_syntax_is_stored_as_sent(
    syntax: UID, listen: Listen, sessions: sessionmaker[Session], tmp_path: Path
) -> None:
    settings = listen()
    dataset = radiograph()
    path = write_radiograph(dataset, tmp_path / "sent.dcm", syntax)
    response = send_file(settings, path, dataset.SOPClassUID, syntax)
    assert response.Status == StoreStatus.SUCCESS
    with sessions() as session:
        instance = session.execute(select(Instance)).scalar_one()
    assert instance.transfer_syntax_uid == syntax
    stored = Archive(settings.archive_path).path(instance.path)
    assert stored.stat().st_size == instance.size_bytes
    assert data_set_bytes(stored) == data_set_bytes(path)


def test_every_storage_class_and_syntax_is_accepted(listen: Listen) -> None:
    settings = listen()
    classes = storage_classes()
    assert len(classes) > 170
    assert len(transfer_syntaxes()) > 55
    for start in range(0, len(classes), 120):
        some = {uid: ["1.2.840.10008.1.2"] for uid in classes[start : start + 120]}
        with association(settings, some) as opened:
            assert {str(one.abstract_syntax) for one in opened.accepted_contexts} == set(some)
    for syntax in transfer_syntaxes():
        with association(settings, {CTImageStorage: [syntax]}) as opened:
            assert [str(one.transfer_syntax[0]) for one in opened.accepted_contexts] == [syntax]


@pytest.mark.parametrize(
    ("sop_class", "pipeline", "state"),
    [
        (SecondaryCaptureImageStorage, "chest_xray", AnalysisState.QUEUED),
        (CTImageStorage, "none", AnalysisState.NOT_ELIGIBLE),
        ("1.2.840.10008.5.1.4.1.1.6", "none", AnalysisState.NOT_ELIGIBLE),  # retired ultrasound
        ("1.2.840.10008.5.1.4.1.1.77.1.6", "none", AnalysisState.NOT_ELIGIBLE),  # whole slide
    ],
)
def test_every_instance_has_an_analysis_or_a_reason(
    sop_class: str,
    pipeline: str,
    state: AnalysisState,
    listen: Listen,
    sessions: sessionmaker[Session],
) -> None:
    assert send(listen(), radiograph(SOPClassUID=sop_class)) == [StoreStatus.SUCCESS]
    with sessions() as session:
        analysis = session.execute(select(Analysis)).scalar_one()
    assert (analysis.pipeline, analysis.state) == (pipeline, state)
    if state is AnalysisState.NOT_ELIGIBLE:
        assert analysis.reasons == [f"no pipeline for {UID(sop_class).name}"]


def test_a_phantom_goes_to_its_own_pipeline(
    listen: Listen, sessions: sessionmaker[Session]
) -> None:
    dataset = radiograph()
    block = dataset.private_block(0x0019, "FIRSTREAD SIMULATOR", create=True)
    block.add_new(0x01, "LO", "PHANTOM")
    assert send(listen(), dataset) == [StoreStatus.SUCCESS]
    with sessions() as session:
        assert session.execute(select(Analysis.pipeline)).scalar_one() == "phantom"


def test_a_repeat_changes_nothing(listen: Listen, sessions: sessionmaker[Session]) -> None:
    dataset = radiograph()
    assert send(listen(), dataset, dataset, dataset) == [StoreStatus.SUCCESS] * 3
    with sessions() as session:
        for table in (Instance, Analysis, Study):
            assert session.execute(select(func.count()).select_from(table)).scalar_one() == 1


def test_a_repeat_heals_an_object_that_vanished_from_the_archive(
    listen: Listen, sessions: sessionmaker[Session]
) -> None:
    settings, dataset = listen(), radiograph()
    send(settings, dataset)
    with sessions() as session:
        path = session.execute(select(Instance.path)).scalar_one()
    stored = Archive(settings.archive_path).path(path)
    stored.unlink()
    assert send(settings, dataset) == [StoreStatus.SUCCESS]
    assert stored.exists()


def test_a_crash_between_file_and_row_is_ended_by_the_repeat(
    listen: Listen, sessions: sessionmaker[Session]
) -> None:
    settings, dataset = listen(), radiograph()
    send(settings, dataset)
    with sessions() as session:  # the state that such a crash leaves: a file and no row
        for table in (WorklistItem, Analysis, Instance):
            session.execute(table.__table__.delete())  # pyright: ignore[reportAttributeAccessIssue]
        session.commit()
    assert send(settings, dataset) == [StoreStatus.SUCCESS]
    with sessions() as session:
        assert session.execute(select(Analysis.state)).scalar_one() == AnalysisState.QUEUED


@pytest.mark.parametrize(
    "tags",
    [
        {"PatientName": "X" * 5000, "StudyDescription": "Y" * 1000},
        {
            "AccessionNumber": "9" * 200,
            "PatientBirthDate": "the first of May",
            "PatientSex": "?" * 40,
        },
        {"StudyDate": "20261331", "StudyTime": "noon", "PatientAge": "very old"},
        {"PatientID": "7" * 300, "IssuerOfPatientID": "8" * 300},
        {"SpecificCharacterSet": "ISO_IR 999", "InstanceNumber": None},
    ],
    ids=["long", "longer than columns", "odd dates", "long identifiers", "unknown charset"],
)
def test_nothing_about_text_loses_an_image(tags: dict[str, object], listen: Listen) -> None:
    with warnings.catch_warnings(action="ignore"):  # pydicom's, of the values that are wanted here
        assert send(listen(), radiograph(**tags)) == [StoreStatus.SUCCESS]


def test_a_patients_name_is_kept_whole(listen: Listen, sessions: sessionmaker[Session]) -> None:
    dataset = radiograph(PatientName="PHANTOM^Ada^^Dr")
    assert send(listen(), dataset) == [StoreStatus.SUCCESS]
    with sessions() as session:
        assert session.execute(select(Patient.patient_name)).scalar_one() == "PHANTOM^Ada^^Dr"


def test_bytes_that_are_no_text_lose_no_image(
    listen: Listen, sessions: sessionmaker[Session], tmp_path: Path
) -> None:
    dataset = radiograph(PatientName="ABCDEFGH", StudyDescription="ABCDEFGH")
    path = write_radiograph(dataset, tmp_path / "sent.dcm")
    path.write_bytes(path.read_bytes().replace(b"ABCDEFGH", b"A\x00\xff\xfe\x80\x00\xedB"))
    response = send_file(listen(), path, dataset.SOPClassUID, ExplicitVRLittleEndian)
    assert response.Status == StoreStatus.SUCCESS
    with sessions() as session:
        assert "\0" not in session.execute(select(Study.study_description)).scalar_one()


@pytest.mark.parametrize("keyword", ["PatientName", "PatientID", "AccessionNumber", "StudyDate"])
def test_a_text_that_is_said_to_be_a_sequence_loses_no_image(
    listen: Listen, tmp_path: Path, keyword: str
) -> None:
    dataset = radiograph(**{keyword: "2026"})
    path = write_radiograph(dataset, tmp_path / "sent.dcm")
    tag = struct.pack("<HH", dataset[keyword].tag.group, dataset[keyword].tag.element)
    stands = tag + dataset[keyword].VR.encode() + b"\x04\0002026"
    content = path.read_bytes()
    assert content.count(stands) == 1
    path.write_bytes(content.replace(stands, tag + b"SQ\0\0\x04\0\0\0002026"))
    response = send_file(listen(), path, dataset.SOPClassUID, ExplicitVRLittleEndian)
    assert response.Status == StoreStatus.SUCCESS


def test_an_association_that_ended_keeps_no_buffer(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[BufferedSocket] = []  # kept: pynetdicom's live on until the collector looks
    held: list[int] = []
    let_go = BufferedSocket.let_go

    def recorded(connection: BufferedSocket) -> None:
        held.append(len(connection._buffer))
        let_go(connection)
        opened.append(connection)

    monkeypatch.setattr(BufferedSocket, "let_go", recorded)
    large = radiograph(Rows=1024, Columns=1024, PixelData=bytes(1024 * 1024 * 2))
    assert send(listen(), large, large) == [StoreStatus.SUCCESS, StoreStatus.SUCCESS]
    assert eventually(lambda: bool(opened), 5)
    assert held[0] > 0
    assert [len(connection._buffer) for connection in opened] == [0]
