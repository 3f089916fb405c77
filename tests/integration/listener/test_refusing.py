"""Every status but Success, and who may not even associate."""

import ctypes
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    generate_uid,
)
from pynetdicom import AE, evt
from sqlalchemy import Engine, create_engine, func, select, text
from sqlalchemy.orm import Session, sessionmaker

from common.errors import ConfigurationError, UnreachableError
from common.settings import Peer, Settings
from common.states import SetAsideKind
from common.tables import Instance, Patient, SetAside, Study
from dicom_listener.peers import Caller, is_admitted
from dicom_listener.service import Listener
from dicom_listener.statuses import StoreStatus
from tests.integration.listener.conftest import (
    Listen,
    association,
    free_port,
    radiograph,
    running_listener,
    send,
    send_file,
    send_one,
)
from tests.radiographs import write_radiograph

UIDS = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


def kinds(sessions: sessionmaker[Session]) -> list[SetAsideKind]:
    """Give why objects were set aside, in order."""
    with sessions() as session:
        return list(session.execute(select(SetAside.kind).order_by(SetAside.id)).scalars())


def count(sessions: sessionmaker[Session], table: type) -> int:
    """Count a table's rows."""
    with sessions() as session:
        return session.execute(select(func.count()).select_from(table)).scalar_one()


@pytest.mark.parametrize(
    ("tags", "status"),
    [
        ({"StudyInstanceUID": None}, StoreStatus.CANNOT_UNDERSTAND),
        ({"SeriesInstanceUID": ""}, StoreStatus.CANNOT_UNDERSTAND),
        ({"StudyInstanceUID": "../../etc/passwd"}, StoreStatus.INVALID_UID),
        ({"SOPInstanceUID": "1.2.three"}, StoreStatus.INVALID_UID),
        ({"SeriesInstanceUID": "1." + "2" * 70}, StoreStatus.INVALID_UID),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_object_without_proper_uids_is_refused(
    tags: dict[str, object],
    status: StoreStatus,
    listen: Listen,
    sessions: sessionmaker[Session],
) -> None:
    settings, dataset = listen(), radiograph()
    for keyword, value in tags.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    assert send(settings, dataset) == [status]
    assert count(sessions, Study) == 0
    assert not [
        one
        for one in settings.archive_path.rglob("*")
        if one.is_file() and one.suffix != ".lock"  # the listener's own
    ]


def test_an_object_that_is_not_what_was_announced_is_refused(
    listen: Listen, tmp_path: Path
) -> None:
    settings, dataset = listen(), radiograph()
    path = write_radiograph(dataset, tmp_path / "sent.dcm")
    other = str(generate_uid()).ljust(len(dataset.SOPInstanceUID), "1")
    other = other[: len(dataset.SOPInstanceUID)]
    content = path.read_bytes()
    head, tail = content[:600], content[600:]
    own = dataset.SOPInstanceUID.encode()
    first = head.index(own) + len(own)  # in the file meta, which the command is made from
    head = head[:first] + head[first:].replace(own, other.encode(), 1)
    path.write_bytes(head + tail)
    response = send_file(settings, path, dataset.SOPClassUID, ExplicitVRLittleEndian)
    assert response.Status == StoreStatus.CLASS_MISMATCH
    assert response.ErrorComment == "SOP Instance UID is not the announced one"


def test_a_class_other_than_the_contexts_is_refused(listen: Listen) -> None:
    settings, dataset = listen(), radiograph()
    with association(settings, {str(CTImageStorage): [str(ExplicitVRLittleEndian)]}) as opened:
        opened.accepted_contexts[0].abstract_syntax = dataset.SOPClassUID  # a sender that lies
        assert send_one(opened, dataset).Status == StoreStatus.CLASS_MISMATCH


CUT_OFF_SEQUENCE = b"\x08\x00\x10\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff"


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"no DICOM at all" * 40, CUT_OFF_SEQUENCE])
def test_a_data_set_that_is_none_is_refused(content: bytes, listen: Listen, tmp_path: Path) -> None:
    settings, dataset = listen(), radiograph()
    path = write_radiograph(dataset, tmp_path / "sent.dcm")
    file = path.read_bytes()
    path.write_bytes(file[: 144 + int.from_bytes(file[140:144], "little")] + content)
    response = send_file(settings, path, dataset.SOPClassUID, ExplicitVRLittleEndian)
    assert response.Status == StoreStatus.CANNOT_UNDERSTAND


def test_other_pixels_under_the_same_uid_are_kept_aside_once(
    listen: Listen, sessions: sessionmaker[Session]
) -> None:
    settings, first = listen(), radiograph()
    second = radiograph(**{tag: first[tag].value for tag in UIDS})
    second.PixelData = bytes(len(second.PixelData))
    assert send(settings, first, second, second, first) == [
        StoreStatus.SUCCESS,
        StoreStatus.CONFLICT,
        StoreStatus.CONFLICT,
        StoreStatus.SUCCESS,
    ]
    assert kinds(sessions) == [SetAsideKind.PIXELS_DIFFER]
    assert count(sessions, Instance) == 1


def test_the_same_pixels_with_corrected_text_are_a_revision(
    listen: Listen, sessions: sessionmaker[Session]
) -> None:
    settings, first = listen(), radiograph(PatientName="DEO^JANE")
    second = radiograph(**{tag: first[tag].value for tag in UIDS}, PatientName="DOE^JANE")
    assert send(settings, first, second, second) == [StoreStatus.SUCCESS] * 3
    assert kinds(sessions) == [SetAsideKind.REVISION]


def test_the_same_pixels_in_another_syntax_are_a_revision(
    listen: Listen, sessions: sessionmaker[Session], tmp_path: Path
) -> None:
    settings, dataset = listen(), radiograph()
    for number, syntax in enumerate((ImplicitVRLittleEndian, JPEGLSLossless)):
        path = write_radiograph(dataset, tmp_path / f"{number}.dcm", syntax)
        response = send_file(settings, path, dataset.SOPClassUID, syntax)
        assert response.Status == StoreStatus.SUCCESS
    assert kinds(sessions) == [SetAsideKind.REVISION]


@pytest.mark.parametrize(
    ("tags", "kind"),
    [
        ({"StudyInstanceUID": "1.2.3.4"}, SetAsideKind.HIERARCHY_DIFFERS),
        ({"SeriesInstanceUID": "1.2.3.4"}, SetAsideKind.HIERARCHY_DIFFERS),
        (
            {"SOPInstanceUID": "1.2.3.4", "StudyInstanceUID": "1.2.3.5"},
            SetAsideKind.HIERARCHY_DIFFERS,
        ),
        ({"PatientID": "P2"}, SetAsideKind.PATIENT_DIFFERS),
        ({"SOPInstanceUID": "1.2.3.4", "PatientID": "P2"}, SetAsideKind.PATIENT_DIFFERS),
        ({"SOPInstanceUID": "1.2.3.4", "PatientID": ""}, SetAsideKind.PATIENT_DIFFERS),
    ],
)
def test_what_contradicts_the_ledger_is_kept_aside_and_never_merged(
    tags: dict[str, str],
    kind: SetAsideKind,
    listen: Listen,
    sessions: sessionmaker[Session],
) -> None:
    settings, first = listen(), radiograph()
    second = radiograph(**{**{tag: first[tag].value for tag in UIDS}, **tags})
    assert send(settings, first, second) == [StoreStatus.SUCCESS, StoreStatus.CONFLICT]
    assert kinds(sessions) == [kind]
    assert [count(sessions, table) for table in (Patient, Study, Instance)] == [1, 1, 1]
    with sessions() as session:
        path = session.execute(select(SetAside.path)).scalar_one()
    assert (settings.archive_path / path).is_file()


def test_an_issuer_that_one_object_omits_is_no_other_patient(listen: Listen) -> None:
    settings, first = listen(), radiograph(IssuerOfPatientID="HOSPITAL")
    second = radiograph(StudyInstanceUID=first.StudyInstanceUID)
    assert send(settings, first, second) == [StoreStatus.SUCCESS] * 2


def test_a_disk_down_to_its_reserve_asks_for_a_retry(
    listen: Listen, sessions: sessionmaker[Session]
) -> None:
    settings = listen(archive_reserve_bytes=1 << 60)
    assert send(settings, radiograph(), radiograph()) == [StoreStatus.OUT_OF_RESOURCES] * 2
    assert count(sessions, Study) == 0
    assert not [
        one
        for one in settings.archive_path.rglob("*")
        if one.is_file() and one.suffix != ".lock"  # the listener's own
    ]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 256 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", bytes(folder), b"tmpfs", 0, b"size=256k,nr_inodes=64") != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    libc.umount2(bytes(folder), 2)


def test_a_full_disk_asks_for_a_retry_that_succeeds(small_disk: Path, listen: Listen) -> None:
    settings = listen(archive=small_disk)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - 8192))
    dataset = radiograph()
    dataset.PixelData = bytes(100_000)
    assert send(settings, dataset) == [StoreStatus.OUT_OF_RESOURCES]
    ballast.unlink()
    assert send(settings, dataset) == [StoreStatus.SUCCESS]


def test_a_database_that_is_away_asks_for_a_retry_that_succeeds(
    listen: Listen, postgres: str, engine: Engine, sessions: sessionmaker[Session]
) -> None:
    settings, dataset = listen(), radiograph()
    name = engine.url.database
    administrator = create_engine(postgres, isolation_level="AUTOCOMMIT")
    with administrator.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false"))
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
            {"name": name},
        )
        assert send(settings, dataset) == [StoreStatus.OUT_OF_RESOURCES]
        connection.execute(text(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true"))
    administrator.dispose()
    assert send(settings, dataset) == [StoreStatus.SUCCESS]
    assert count(sessions, Instance) == 1


def test_a_defect_is_answered_and_not_dropped(listen: Listen, engine: Engine) -> None:
    settings = listen()
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM site"))  # a ledger that no migration leaves behind
    assert send(settings, radiograph()) == [StoreStatus.PROCESSING_FAILURE]


@pytest.mark.parametrize(("called", "reason"), [("SOMEBODY_ELSE", 7), ("FIRSTREAD", None)])
def test_a_caller_who_means_another_is_rejected(
    called: str, reason: int | None, listen: Listen
) -> None:
    with association(
        listen(), {str(CTImageStorage): [str(ExplicitVRLittleEndian)]}, called=called
    ) as opened:
        assert opened.is_rejected == (reason is not None)
        if reason is not None:
            assert opened.acceptor.primitive is not None
            assert opened.acceptor.primitive.diagnostic == reason


def test_one_association_too_many_is_rejected_for_now(listen: Listen) -> None:
    settings = listen(dicom_max_associations=2)
    classes = {str(CTImageStorage): [str(ExplicitVRLittleEndian)]}
    with association(settings, classes) as first, association(settings, classes) as second:
        assert first.is_established
        assert second.is_established
        with association(settings, classes) as third:
            assert third.is_rejected
            assert third.acceptor.primitive is not None
            assert third.acceptor.primitive.result == 2
            assert third.acceptor.primitive.diagnostic == 2
    time.sleep(0.2)
    with association(settings, classes) as again:
        assert again.is_established


def test_connections_that_say_nothing_take_no_place(listen: Listen) -> None:
    settings = listen(dicom_max_associations=1)
    silent = [socket.create_connection(("127.0.0.1", settings.dicom_port)) for _ in range(10)]
    try:
        assert send(settings, radiograph()) == [StoreStatus.SUCCESS]
    finally:
        for one in silent:
            one.close()


def test_what_an_aborted_association_left_is_removed(listen: Listen, tmp_path: Path) -> None:
    settings, dataset = listen(), radiograph()
    dataset.PixelData = bytes(2_000_000)
    path = write_radiograph(dataset, tmp_path / "sent.dcm")

    sent_bytes = 0

    def vanish(event: evt.Event) -> None:
        nonlocal sent_bytes
        sent_bytes += len(event.data)
        if sent_bytes > 1_000_000:
            event.assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)  # pyright: ignore

    with association(settings, {dataset.SOPClassUID: [ExplicitVRLittleEndian]}) as opened:
        opened.bind(evt.EVT_DATA_SENT, vanish)
        opened.send_c_store(path)
    deadline = time.monotonic() + 5
    while list(settings.archive_path.glob("incoming/*/*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not list(settings.archive_path.glob("incoming/*/*"))
    assert send(settings, radiograph()) == [StoreStatus.SUCCESS]


def test_an_announced_pdu_of_gigabytes_is_not_waited_for(listen: Listen) -> None:
    settings = listen()
    with socket.create_connection(("127.0.0.1", settings.dicom_port)) as peer:
        peer.settimeout(5)
        peer.sendall(b"\x01\x00\xff\xff\xff\xff" + bytes(64))
        try:
            answer = peer.recv(1)
        except ConnectionResetError:  # closed with bytes unread
            answer = b""
        assert answer == b""


def test_a_peer_beyond_loopback_must_be_on_the_list(settings: Settings) -> None:
    listed = settings.model_copy(
        update={"dicom_peers": (Peer.parse("CR1@10.1.0.0/16"), Peer.parse("*@192.0.2.7"))}
    )
    assert is_admitted(Caller("CR1", "FIRSTREAD", "10.1.2.3"), listed)
    assert is_admitted(Caller("CR1 ", "FIRSTREAD", "::ffff:10.1.2.3"), listed)
    assert is_admitted(Caller("ANY", "FIRSTREAD", "192.0.2.7"), listed)
    assert is_admitted(Caller("ANY", "FIRSTREAD", "127.0.0.1"), listed)
    assert not is_admitted(Caller("CR2", "FIRSTREAD", "10.1.2.3"), listed)
    assert not is_admitted(Caller("CR1", "FIRSTREAD", "10.2.0.1"), listed)
    assert not is_admitted(Caller("CR1", "FIRSTREAD", "10.1.2.3"), settings)


def test_an_unknown_address_is_rejected_on_the_wire(listen: Listen) -> None:
    own = _own_address()
    if own is None:
        pytest.skip("this machine has no address but loopback")
    settings = listen(dicom_host="0.0.0.0")  # noqa: S104 - that is what is tested
    sender = AE(ae_title="STRANGER")
    sender.add_requested_context(CTImageStorage)
    opened = sender.associate(own, settings.dicom_port, ae_title=settings.ae_title)
    assert opened.is_rejected
    assert opened.acceptor.primitive is not None
    assert opened.acceptor.primitive.diagnostic == 3


def _own_address() -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return None
        address = probe.getsockname()[0]
    return None if address.startswith("127.") else address


def test_the_listener_says_at_start_what_it_lacks(
    settings: Settings, empty_database_url: str, tmp_path: Path
) -> None:
    def changed(**values: object) -> Settings:
        return settings.model_copy(update={"dicom_port": free_port(), **values})

    with pytest.raises(ConfigurationError, match="firstread migrate"):
        Listener(changed(database_url=SecretStr(empty_database_url)))
    away = f"postgresql+psycopg://nobody@127.0.0.1:{free_port()}/none"
    with pytest.raises(UnreachableError, match="FIRSTREAD_DATABASE_URL"):
        Listener(changed(database_url=SecretStr(away)))
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="FIRSTREAD_ARCHIVE"):
        Listener(changed(archive=tmp_path / "file" / "archive"))
    running = changed()
    with running_listener(running), pytest.raises(ConfigurationError, match="FIRSTREAD_DICOM_PORT"):
        Listener(running)
