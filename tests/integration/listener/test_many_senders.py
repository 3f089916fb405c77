"""Many associations at once: each object once, nothing stuck, nothing merged."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from common.states import Lane, OrderPriority
from common.tables import Analysis, Instance, Patient, Series, SetAside, Study, WorklistItem
from dicom_listener.statuses import StoreStatus
from tests.integration.listener.conftest import Listen, radiograph, send

SENDERS = 8


def send_at_once(listen: Listen, sent: list[list[Dataset]]) -> list[int]:
    """Send each list in an association of its own, all at the same time."""
    settings = listen()
    with ThreadPoolExecutor(len(sent)) as senders:
        statuses = senders.map(lambda datasets: send(settings, *datasets), sent)
    return [status for some in statuses for status in some]


def count(sessions: sessionmaker[Session], table: type) -> int:
    """Count a table's rows."""
    with sessions() as session:
        return session.execute(select(func.count()).select_from(table)).scalar_one()


def test_the_same_object_from_eight_senders_is_one_instance(
    listen: Listen, sessions: sessionmaker[Session]
) -> None:
    dataset = radiograph()
    statuses = send_at_once(listen, [[dataset] for _ in range(SENDERS)])
    assert statuses == [StoreStatus.SUCCESS] * SENDERS
    assert [count(sessions, table) for table in (Instance, Analysis, WorklistItem)] == [1, 1, 1]


def test_different_pixels_under_one_uid_from_eight_senders_keep_the_first(
    listen: Listen, sessions: sessionmaker[Session]
) -> None:
    first = radiograph()
    uids = {
        tag: first[tag].value for tag in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
    }
    sent = []
    for number in range(SENDERS):
        dataset = radiograph(**uids)
        dataset.PixelData = bytes([number, 0]) + dataset.PixelData[2:]
        sent.append([dataset])
    statuses = send_at_once(listen, sent)
    assert sorted(statuses) == [StoreStatus.SUCCESS] + [StoreStatus.CONFLICT] * (SENDERS - 1)
    assert (count(sessions, Instance), count(sessions, SetAside)) == (1, SENDERS - 1)


def test_studies_of_one_patient_and_series_of_one_study_do_not_block_one_another(
    listen: Listen, sessions: sessionmaker[Session]
) -> None:
    studies = [str(generate_uid()) for _ in range(3)]
    sent = [
        [
            radiograph(StudyInstanceUID=studies[(sender + number) % 3], PatientBirthDate="19700101")
            for number in range(6)
        ]
        for sender in range(SENDERS)
    ]
    statuses = send_at_once(listen, sent)
    assert statuses == [StoreStatus.SUCCESS] * (6 * SENDERS)
    assert [count(sessions, table) for table in (Patient, Study, Series, Instance)] == [
        1,
        3,
        6 * SENDERS,
        6 * SENDERS,
    ]


def test_one_study_under_two_patients_at_once_belongs_to_one(
    listen: Listen, sessions: sessionmaker[Session]
) -> None:
    study = str(generate_uid())
    sent = [
        [radiograph(StudyInstanceUID=study, PatientID=f"P{sender % 2}") for _ in range(3)]
        for sender in range(SENDERS)
    ]
    statuses = send_at_once(listen, sent)
    assert statuses.count(StoreStatus.SUCCESS) == statuses.count(StoreStatus.CONFLICT) == 12
    assert (count(sessions, Patient), count(sessions, Study)) == (1, 1)


def test_an_urgent_order_that_comes_with_a_later_image_counts(
    listen: Listen, sessions: sessionmaker[Session]
) -> None:
    settings, first = listen(), radiograph()
    urgent = radiograph(StudyInstanceUID=first.StudyInstanceUID, RequestedProcedurePriority="STAT")
    last = radiograph(StudyInstanceUID=first.StudyInstanceUID, RequestedProcedurePriority="LOW")
    send(settings, first, urgent, last)
    with sessions() as session:
        item = session.execute(select(WorklistItem)).scalar_one()
        rows = session.execute(select(Analysis.band, Analysis.due_at)).all()
    assert item.order_priority is OrderPriority.STAT
    assert set(rows) == {(0, item.due_at)}


def test_a_study_acquired_long_ago_waits_behind_and_is_not_listed(
    listen: Listen, sessions: sessionmaker[Session]
) -> None:
    month_ago = (datetime.now(UTC) - timedelta(days=30)).strftime("%Y%m%d")
    send(listen(), radiograph(StudyDate=month_ago, StudyTime="0930"))
    with sessions() as session:
        assert session.execute(select(Analysis.lane)).scalar_one() == Lane.BACKFILL
        assert not session.execute(select(WorklistItem.listed)).scalar_one()


def test_images_without_patient_id_are_a_person_of_each_study(
    listen: Listen, sessions: sessionmaker[Session]
) -> None:
    first = radiograph(PatientID="")
    second = radiograph(PatientID="", StudyInstanceUID=first.StudyInstanceUID)
    assert send(listen(), first, second, radiograph(PatientID=None)) == [StoreStatus.SUCCESS] * 3
    with sessions() as session:
        stated = session.execute(select(Patient.patient_id_stated)).scalars().all()
    assert stated == [False, False]
