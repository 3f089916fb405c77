"""The direct path and pynetdicom's own answer alike, whatever comes on the wire."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from common.settings import Settings
from common.tables import Instance
from dicom_listener.statuses import StoreStatus
from tests.integration.listener.conftest import (
    data_set_bytes,
    free_port,
    radiograph,
    running_listener,
)
from tests.radiographs import write_radiograph
from tests.raw_peer import (
    ABORT,
    RELEASE_RP,
    RELEASE_RQ,
    RawPeer,
    echo_command,
    fragments,
    pdu,
    pdv,
    store_command,
)

Talk = Callable[[RawPeer, Dataset, bytes], object]


@pytest.fixture(params=[True, False], ids=["direct", "pynetdicom"])
def listening(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Settings]:
    """Run a listener over either path."""
    changed = settings.model_copy(update={"dicom_port": free_port(), "archive_reserve_bytes": 0})
    with running_listener(changed, direct=request.param):
        yield changed


@pytest.fixture
def sent(tmp_path: Path) -> tuple[Dataset, bytes]:
    """Give an object and its data set as it goes over the wire."""
    dataset = radiograph()
    path = tmp_path / "sent.dcm"
    write_radiograph(dataset, path)
    return dataset, data_set_bytes(path)


def command_of(dataset: Dataset) -> bytes:
    """Write the C-STORE command of an object."""
    return store_command(str(dataset.SOPClassUID), str(dataset.SOPInstanceUID))


def stored(sessions: sessionmaker[Session]) -> int:
    """Count the instances."""
    with sessions() as session:
        return session.execute(select(func.count()).select_from(Instance)).scalar_one()


@pytest.mark.parametrize("seed", range(6))
def test_a_data_set_in_any_fragments_is_stored_byte_for_byte(
    listening: Settings,
    sessions: sessionmaker[Session],
    sent: tuple[Dataset, bytes],
    seed: int,
) -> None:
    dataset, data = sent
    with RawPeer(listening.dicom_port) as peer:
        peer.associate(str(dataset.SOPClassUID), listening.ae_title)
        peer.socket.sendall(pdu(pdv(command_of(dataset), command=True, last=True)))
        for part in fragments(data, random.Random(seed)):
            peer.socket.sendall(part)
        assert peer.read_status() == StoreStatus.SUCCESS
        peer.socket.sendall(pdu(b"\0\0\0\0", kind=RELEASE_RQ))
        assert peer.read_pdu()[0] == RELEASE_RP
    with sessions() as session:
        path = session.execute(select(Instance.path)).scalar_one()
    assert data_set_bytes(listening.archive_path / path) == data


def test_a_command_in_fragments_and_in_one_pdu_with_its_data_is_served(
    listening: Settings, sessions: sessionmaker[Session], sent: tuple[Dataset, bytes]
) -> None:
    dataset, data = sent
    command = command_of(dataset)
    with RawPeer(listening.dicom_port) as peer:
        peer.associate(str(dataset.SOPClassUID), listening.ae_title)
        peer.socket.sendall(pdu(pdv(command[:20], command=True, last=False)))
        peer.socket.sendall(
            pdu(
                pdv(command[20:], command=True, last=True),
                pdv(data[:100], command=False, last=False),
            )
        )
        peer.socket.sendall(pdu(pdv(data[100:], command=False, last=True)))
        assert peer.read_status() == StoreStatus.SUCCESS
        # The next one takes the direct path again, where there is one.
        peer.socket.sendall(pdu(pdv(command, command=True, last=True)))
        peer.socket.sendall(pdu(pdv(data, command=False, last=True)))
        assert peer.read_status() == StoreStatus.SUCCESS
    assert stored(sessions) == 1


def test_an_echo_between_two_objects_and_bytes_that_drip_are_served(
    listening: Settings, sessions: sessionmaker[Session], sent: tuple[Dataset, bytes]
) -> None:
    dataset, data = sent
    stream = pdu(pdv(command_of(dataset), command=True, last=True)) + pdu(
        pdv(data, command=False, last=True)
    )
    with RawPeer(listening.dicom_port) as peer:
        peer.associate(str(dataset.SOPClassUID), listening.ae_title)
        for at in range(300):
            peer.socket.sendall(stream[at : at + 1])
        peer.socket.sendall(stream[300:])
        assert peer.read_status() == StoreStatus.SUCCESS
        peer.socket.sendall(pdu(pdv(echo_command(), command=True, last=True)))
        assert peer.read_status() == StoreStatus.SUCCESS
        peer.socket.sendall(stream)
        assert peer.read_status() == StoreStatus.SUCCESS
    assert stored(sessions) == 1


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "pynetdicom"])
def test_an_idle_association_ends_when_its_time_is_over(settings: Settings, direct: bool) -> None:
    limits = {"dicom_port": free_port(), "dicom_network_timeout_s": 1.0}
    dataset = radiograph()
    with (
        running_listener(settings.model_copy(update=limits), direct=direct),
        RawPeer(limits["dicom_port"]) as peer,  # pyright: ignore[reportArgumentType]
    ):
        peer.associate(str(dataset.SOPClassUID), settings.ae_title)
        assert peer.read_pdu()[0] in (ABORT, 0)


def oversized(peer: RawPeer, dataset: Dataset, data: bytes) -> None:
    """Announce a PDU of two gigabytes."""
    peer.socket.sendall(pdu(pdv(command_of(dataset), command=True, last=True)))
    peer.socket.sendall(b"\4\0\x7f\xff\xff\xff" + pdv(data, command=False, last=False))


def longer_fragment(peer: RawPeer, dataset: Dataset, data: bytes) -> None:
    """Send a fragment that claims to reach beyond its PDU."""
    peer.socket.sendall(pdu(pdv(command_of(dataset), command=True, last=True)))
    peer.socket.sendall(pdu(b"\0\1\0\0\1\0" + data[:100]))


def command_within_data(peer: RawPeer, dataset: Dataset, data: bytes) -> None:
    """Begin another command before the data set has ended."""
    peer.socket.sendall(pdu(pdv(command_of(dataset), command=True, last=True)))
    peer.socket.sendall(pdu(pdv(data[:100], command=False, last=False)))
    peer.socket.sendall(pdu(pdv(command_of(dataset), command=True, last=True)))


def unknown_context(peer: RawPeer, dataset: Dataset, data: bytes) -> None:
    """Use a presentation context that was never accepted."""
    peer.socket.sendall(pdu(pdv(command_of(dataset), command=True, last=True, context_id=99)))
    peer.socket.sendall(pdu(pdv(data, command=False, last=True, context_id=99)))


def unknown_pdu(peer: RawPeer, dataset: Dataset, data: bytes) -> None:
    """Send a PDU of a type that does not exist, in the middle of an object."""
    peer.socket.sendall(pdu(pdv(command_of(dataset), command=True, last=True)))
    peer.socket.sendall(pdu(pdv(data[:100], command=False, last=False)))
    peer.socket.sendall(pdu(b"nonsense", kind=0x2A))


@pytest.mark.parametrize(
    "talk", [oversized, longer_fragment, command_within_data, unknown_context, unknown_pdu]
)
def test_a_broken_message_ends_its_association_and_leaves_nothing(
    listening: Settings, sessions: sessionmaker[Session], sent: tuple[Dataset, bytes], talk: Talk
) -> None:
    dataset, data = sent
    with RawPeer(listening.dicom_port) as peer:
        peer.associate(str(dataset.SOPClassUID), listening.ae_title)
        talk(peer, dataset, data)
        kind, _ = peer.read_pdu()
        assert kind in (ABORT, 0)
    assert_unharmed(listening, sessions, dataset, data)


@pytest.mark.parametrize("ending", [pdu(b"\0\0\0\0", kind=ABORT), b""], ids=["abort", "hang up"])
def test_an_object_that_its_sender_leaves_is_not_kept(
    listening: Settings,
    sessions: sessionmaker[Session],
    sent: tuple[Dataset, bytes],
    ending: bytes,
) -> None:
    dataset, data = sent
    with RawPeer(listening.dicom_port) as peer:
        peer.associate(str(dataset.SOPClassUID), listening.ae_title)
        peer.socket.sendall(pdu(pdv(command_of(dataset), command=True, last=True)))
        peer.socket.sendall(pdu(pdv(data[:-1], command=False, last=False)))
        peer.socket.sendall(ending)
    assert_unharmed(listening, sessions, dataset, data)


def test_mutated_streams_never_harm_a_neighbour(
    listening: Settings, sessions: sessionmaker[Session], sent: tuple[Dataset, bytes]
) -> None:
    dataset, data = sent
    good = pdu(pdv(command_of(dataset), command=True, last=True)) + pdu(
        pdv(data, command=False, last=True)
    )
    chooser = random.Random(7)
    for _ in range(40):
        stream = bytearray(good)
        for _ in range(chooser.randint(1, 4)):
            # The head is where a parser can be led astray; a pixel is only another pixel.
            stream[chooser.randrange(min(len(stream), 200))] = chooser.randrange(256)
        with RawPeer(listening.dicom_port) as peer:
            peer.associate(str(dataset.SOPClassUID), listening.ae_title)
            peer.socket.sendall(bytes(stream))
    with RawPeer(listening.dicom_port) as peer:
        neighbour = radiograph()
        peer.associate(str(neighbour.SOPClassUID), listening.ae_title)
        peer.socket.sendall(good)
        assert peer.read_status() is not None


def assert_unharmed(
    listening: Settings, sessions: sessionmaker[Session], dataset: Dataset, data: bytes
) -> None:
    """Check that nothing was stored, and that the same object still can be."""
    assert stored(sessions) == 0
    with RawPeer(listening.dicom_port) as peer:
        peer.associate(str(dataset.SOPClassUID), listening.ae_title)
        peer.socket.sendall(pdu(pdv(command_of(dataset), command=True, last=True)))
        peer.socket.sendall(pdu(pdv(data, command=False, last=True)))
        assert peer.read_status() == StoreStatus.SUCCESS
    assert stored(sessions) == 1
    incoming = [path for path in listening.archive_path.glob("incoming/*/*") if path.is_file()]
    assert incoming == []
