"""The sender against a plain receiver on the loopback."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom import dcmread
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event

from common.errors import ConfigurationError, UnreachableError
from common.pixels.header import is_phantom
from common.pixels.reading import read_pixels
from firstread.scanner.cases import Case
from firstread.scanner.expectations import compare_answers, read_expectations
from firstread.scanner.outgoing import Outgoing, read_outgoing
from firstread.scanner.own_files import Claims, send_paths
from firstread.scanner.plans import StudyPlan, plan_demo, plan_stream
from firstread.scanner.scanner import Scanner
from firstread.scanner.send_log import SendLog, read_send_log
from firstread.scanner.sending import Destination, RetryPolicy, send
from firstread.scanner.simulation import Run, simulate

STARTED_AT = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
IMPATIENT = RetryPolicy(attempts=4, first_wait_s=0.02, longest_wait_s=0.05)
Store = Callable[[Event], int]


@contextmanager
def receiver(store: Store) -> Iterator[Destination]:
    """Run a C-STORE receiver that answers what ``store`` says."""
    entity = AE(ae_title="RECEIVER")
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax or "", ALL_TRANSFER_SYNTAXES)
    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)]
    )
    assert server is not None
    try:
        yield Destination("RECEIVER", "127.0.0.1", server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()


class Recorder:
    """Keeps what arrives, and answers from a list of statuses, then success."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.received: list[tuple[str, str, str]] = []

    def __call__(self, event: Event) -> int:
        request = event.request
        assert isinstance(request, C_STORE)
        assert request.DataSet is not None
        digest = sha256(request.DataSet.getvalue()).hexdigest()
        caller = event.assoc.requestor.ae_title.strip()
        self.received.append((str(request.AffectedSOPInstanceUID), digest, caller))
        return self.statuses.pop(0) if self.statuses else 0x0000


def small(plan: StudyPlan) -> StudyPlan:
    return replace(plan, size_px=(128, 128))


def data_set_hash(path: Path) -> str:
    """Hash a file's data set: what remains after preamble and file meta."""
    length = 132 + 12 + int(dcmread(path).file_meta.FileMetaInformationGroupLength)
    return sha256(path.read_bytes()[length:]).hexdigest()


@pytest.fixture
def radiograph(tmp_path: Path) -> Outgoing:
    plan = small(next(plan_stream(1, 1, special_share=0)))
    return Scanner(1, "run", STARTED_AT, tmp_path / "objects").write_study(plan).outgoing[0]


def test_an_object_is_sent_again_while_the_receiver_is_out_of_resources(
    radiograph: Outgoing, tmp_path: Path
) -> None:
    store = Recorder(0xA700, 0xA700)
    with receiver(store) as destination, SendLog(tmp_path / "sent.jsonl") as log:
        (answer,) = send([radiograph], destination, log=log, retry=IMPATIENT)

    assert answer.status == 0x0000
    assert answer.attempts == 3
    assert len(store.received) == 3
    (line,) = read_send_log(tmp_path / "sent.jsonl")
    assert line == answer
    assert line.sop_instance_uid == radiograph.sop_instance_uid
    assert line.calling_ae_title == radiograph.calling_ae_title


@pytest.mark.parametrize("status", [0xA900, 0xC000, 0xC001, 0x0110, 0x0117, 0x0124])
def test_a_refusal_is_final_and_the_next_object_is_sent(radiograph: Outgoing, status: int) -> None:
    store = Recorder(status)
    with receiver(store) as destination:
        answers = send([radiograph, radiograph], destination, retry=IMPATIENT)

    assert [(one.status, one.attempts) for one in answers] == [(status, 1), (0x0000, 1)]
    assert [one.stored for one in answers] == [False, True]


def test_a_sender_gives_up_after_its_attempts(radiograph: Outgoing) -> None:
    store = Recorder(*[0xA700] * 9)
    with receiver(store) as destination:
        (answer,) = send([radiograph], destination, retry=IMPATIENT)

    assert (answer.status, answer.attempts) == (0xA700, 4)


def test_a_lost_association_is_opened_again(radiograph: Outgoing) -> None:
    times = 0

    def store(event: Event) -> int:
        nonlocal times
        times += 1
        if times == 1:
            event.assoc.abort()
        return 0x0000

    with receiver(store) as destination:
        (answer,) = send([radiograph], destination, retry=IMPATIENT)

    assert (answer.status, answer.attempts) == (0x0000, 2)


# pynetdicom 3.0 leaves the socket of a refused connection to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_nobody_listening_is_an_error_that_says_so(radiograph: Outgoing) -> None:
    with receiver(Recorder()) as destination:
        pass

    with pytest.raises(UnreachableError, match="is a listener running"):
        send([radiograph], destination, retry=IMPATIENT)


def test_objects_arrive_as_they_lie_on_disk_from_their_own_station(tmp_path: Path) -> None:
    scanner = Scanner(2, "run", STARTED_AT, tmp_path)
    plans = [small(plan) for plan in plan_demo(2, frontals=2)]
    outgoing = [one for plan in plans for one in scanner.write_study(plan).outgoing]
    store = Recorder()
    with receiver(store) as destination:
        answers = send(outgoing, destination, retry=IMPATIENT)

    assert [one.status for one in answers] == [0x0000] * len(outgoing)
    assert [one.path for one in answers] == [one.path for one in outgoing]
    expected = [
        (one.sop_instance_uid, data_set_hash(one.path), one.calling_ae_title) for one in outgoing
    ]
    assert store.received == expected
    assert len({caller for _, _, caller in store.received}) >= 4


def test_more_contexts_than_one_association_holds_are_spread(radiograph: Outgoing) -> None:
    classes = [str(one.abstract_syntax) for one in AllStoragePresentationContexts]
    announced = [replace(radiograph, sop_class_uid=one, has_meta=False) for one in classes]
    store = Recorder()
    with receiver(store) as destination:
        answers = send(announced[:140], destination, retry=IMPATIENT)

    assert len(classes) >= 140
    assert len(answers) == 140
    assert all(one.status == 0x0000 for one in answers)


def test_a_context_that_nobody_accepts_gives_a_reason_and_no_status(radiograph: Outgoing) -> None:
    odd = replace(radiograph, sop_class_uid="2.25.1234567", has_meta=False)
    with receiver(Recorder()) as destination:
        answers = send([odd, radiograph], destination, retry=IMPATIENT)

    assert [one.status for one in answers] == [None, 0x0000]
    assert answers[0].reason


def test_a_simulation_leaves_expectations_and_a_log_that_agree(tmp_path: Path) -> None:
    run = Run(tmp_path, "run", 5, STARTED_AT, keep_files=False)
    plans = [small(plan) for plan in plan_stream(5, 6)]
    with receiver(Recorder()) as destination:
        simulate(run, plans, destination, studies_per_min=6000, retry=IMPATIENT)

    expectations = read_expectations(run.expectations_path)
    answers = list(read_send_log(run.send_log_path))
    assert len(expectations.studies) == 6
    assert [one.path for one in answers] == [one.path for one in expectations.objects]
    assert not list((tmp_path / "objects").rglob("*.dcm"))


def test_answers_are_compared_with_what_was_expected(tmp_path: Path) -> None:
    run = Run(tmp_path, "run", 6, STARTED_AT)
    plan = small(next(plan_stream(6, 1, special_share=0)))
    refused = replace(plan, number=1, cases=(Case.NO_STUDY_UID,))
    with receiver(Recorder()) as destination:
        expectations = simulate(run, [plan, refused], destination, retry=IMPATIENT)

    (complaint,) = compare_answers(expectations, read_send_log(run.send_log_path))
    assert "no_study_uid" in complaint
    assert "expected 0xc000, got 0x0000" in complaint


def test_a_file_without_file_meta_is_sent_by_what_its_data_set_says(
    radiograph: Outgoing, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    dataset = dcmread(radiograph.path)
    dataset.save_as(bare, implicit_vr=False, little_endian=True, enforce_file_format=False)
    length = 132 + 12 + int(dataset.file_meta.FileMetaInformationGroupLength)
    bare.write_bytes(radiograph.path.read_bytes()[length:])
    store = Recorder()
    with receiver(store) as destination:
        (answer,) = send_paths([bare], destination, retry=IMPATIENT)

    assert answer.status == 0x0000
    assert answer.path == bare
    assert store.received[0][:2] == (radiograph.sop_instance_uid, data_set_hash(radiograph.path))


def test_pictures_are_wrapped_and_what_is_no_image_is_told(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    grey = (np.random.default_rng(0).random((40, 30)) * 65535).astype(np.uint16)
    cv2.imwrite(str(picture), grey)
    note = tmp_path / "b.txt"
    note.write_text("no image")
    kept: list[bytes] = []

    def store(event: Event) -> int:
        kept.append(event.encoded_dataset())
        return 0x0000

    with receiver(store) as destination:
        answers = send_paths([tmp_path], destination, retry=IMPATIENT)
        again = send_paths(
            [picture], destination, claims=Claims("PA", "CHEST", 44), retry=IMPATIENT
        )

    by_name = {one.path.name: one for one in answers}
    assert by_name["a.png"].status == 0x0000
    assert by_name["b.txt"].status is None
    assert by_name["b.txt"].reason
    assert again[0].sop_instance_uid != by_name["a.png"].sop_instance_uid
    paths = [tmp_path / f"{i}.dcm" for i in range(2)]
    for path, data in zip(paths, kept, strict=True):
        path.write_bytes(data)
    silent, claimed = (dcmread(path) for path in paths)
    assert "ViewPosition" not in silent
    assert "BodyPartExamined" not in silent
    assert (claimed.ViewPosition, claimed.BodyPartExamined) == ("PA", "CHEST")
    assert claimed.PatientAge == "044Y"
    assert not is_phantom(claimed)
    assert np.abs(read_pixels(paths[0]) - grey / 65535).max() < 1e-4


def test_a_wrapped_picture_is_announced_by_the_same_uid_each_time(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    cv2.imwrite(str(picture), np.eye(32, dtype=np.uint8) * 200)
    with receiver(Recorder()) as destination:
        first, second = (send_paths([picture], destination, retry=IMPATIENT)[0] for _ in range(2))

    assert first.sop_instance_uid == second.sop_instance_uid


@pytest.mark.parametrize("text", ["FIRSTREAD", "A@host", "A@host:0", "A@host:99999", "@h:1"])
def test_a_destination_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="AE@host:port"):
        Destination.parse(text)


def test_a_destination_is_read_and_written_alike() -> None:
    assert str(Destination.parse("FIRSTREAD@127.0.0.1:11112")) == "FIRSTREAD@127.0.0.1:11112"


def test_the_announced_syntax_and_class_come_from_the_file_meta(radiograph: Outgoing) -> None:
    announced = read_outgoing(radiograph.path)

    meta = dcmread(radiograph.path).file_meta
    assert announced.context == (meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)
