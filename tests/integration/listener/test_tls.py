"""DICOM TLS: the right certificate gets in, byte for byte; any other gets nothing."""

import random
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from pydicom.dataset import Dataset
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from common.settings import Settings
from common.tables import Instance
from dicom_listener.service import Listener
from dicom_listener.statuses import StoreStatus
from firstread.children import Child
from firstread.services import service_ready
from tests.certificates import Authority, Identity
from tests.integration.listener.conftest import (
    data_set_bytes,
    free_port,
    radiograph,
    running_listener,
    send,
)
from tests.radiographs import make_exposure, make_radiograph, write_radiograph
from tests.raw_peer import RawPeer, echo_command, fragments, pdu, pdv, store_command


class Site(NamedTuple):
    """Who has a certificate, and from whom."""

    authority: Authority
    server: Identity
    client: Identity
    expired: Identity
    stranger: Identity


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Make the site's certificates and a stranger's."""
    ours = Authority(tmp_path_factory.mktemp("site"), "authority")
    theirs = Authority(tmp_path_factory.mktemp("stranger"), "stranger")
    return Site(
        ours,
        server=ours.sign("server", rsa=True),
        client=ours.sign("client"),
        expired=ours.sign("expired", days=-1),
        stranger=theirs.sign("client"),
    )


def secured(settings: Settings, site: Site, **changes: object) -> Settings:
    """Give settings of a listener that speaks TLS on a port of its own."""
    return settings.model_copy(
        update={
            "dicom_port": free_port(),
            "archive_reserve_bytes": 0,
            "dicom_tls_certificate": site.server.certificate,
            "dicom_tls_key": site.server.key,
            "dicom_tls_ca": site.authority.certificate,
            **changes,
        }
    )


@pytest.fixture
def listening(settings: Settings, site: Site) -> Iterator[tuple[Settings, Listener]]:
    """Run a listener that speaks TLS."""
    changed = secured(settings, site)
    with running_listener(changed) as listener:
        yield changed, listener


def dcmtk(tool: str, settings: Settings, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a client of DCMTK against the listener."""
    command = [tool, "-v", "-to", "10", "-aec", settings.ae_title, *arguments]
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=60, check=False
    )


def as_client(site: Site, identity: Identity) -> tuple[object, ...]:
    """Give DCMTK's options for TLS under a certificate."""
    return "+tls", identity.key, identity.certificate, "+cf", site.authority.certificate


def here(settings: Settings) -> tuple[object, ...]:
    """Give DCMTK's address of the listener."""
    return "127.0.0.1", settings.dicom_port


def stored(sessions: sessionmaker[Session]) -> list[str]:
    """Give the paths of what was stored."""
    with sessions() as session:
        return list(session.scalars(select(Instance.path).order_by(Instance.id)))


def test_objects_of_several_megabytes_come_through_tls_byte_for_byte(
    listening: tuple[Settings, Listener],
    site: Site,
    sessions: sessionmaker[Session],
    tmp_path: Path,
) -> None:
    settings, _ = listening
    files = []
    for number, shape in enumerate([(2000, 1900), (24, 20), (1400, 1501)]):
        files.append(tmp_path / f"{number}.dcm")
        write_radiograph(make_radiograph(make_exposure(shape=shape), 12), files[-1])
    assert files[0].stat().st_size > 7_000_000
    sent = dcmtk("storescu", settings, *as_client(site, site.client), *here(settings), *files)
    assert sent.returncode == 0, sent.stderr
    assert sent.stderr.count("Received Store Response (Success)") == len(files)
    kept = [data_set_bytes(settings.archive_path / path) for path in stored(sessions)]
    assert kept == [data_set_bytes(file) for file in files]


@pytest.mark.parametrize("profile", ["+py", "+px", "+pz"])
def test_an_echo_under_each_current_profile_of_the_standard_is_answered(
    listening: tuple[Settings, Listener], site: Site, profile: str
) -> None:
    settings, _ = listening
    echo = dcmtk("echoscu", settings, *as_client(site, site.client), profile, *here(settings))
    assert echo.returncode == 0, echo.stderr


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        ("stranger", "unable to get local issuer certificate"),
        ("expired", "certificate has expired"),
        ("nobody", "peer did not return a certificate"),
        ("plain", "wrong version number"),
    ],
)
def test_a_wrong_expired_or_missing_certificate_gets_nothing(
    listening: tuple[Settings, Listener],
    site: Site,
    sessions: sessionmaker[Session],
    tmp_path: Path,
    who: str,
    reason: str,
) -> None:
    settings, listener = listening
    path = tmp_path / "one.dcm"
    write_radiograph(radiograph(), path)
    options: dict[str, tuple[object, ...]] = {
        "stranger": as_client(site, site.stranger),
        "expired": as_client(site, site.expired),
        "nobody": ("+tla", "+cf", site.authority.certificate),
        "plain": (),
    }
    for tool, files in (("echoscu", ()), ("storescu", (path,))):
        refused = dcmtk(tool, settings, *options[who], *here(settings), *files)
        assert refused.returncode != 0
    assert stored(sessions) == []
    assert listener.handshakes_refused == {reason: 2}
    echo = dcmtk("echoscu", settings, *as_client(site, site.client), *here(settings))
    assert echo.returncode == 0, echo.stderr


@pytest.mark.parametrize(
    ("version", "suites"),
    [
        (ssl.TLSVersion.TLSv1_1, "ALL:@SECLEVEL=0"),
        (ssl.TLSVersion.TLSv1_2, "ECDHE+AES+SHA1:AES128-GCM-SHA256"),
    ],
    ids=["TLS 1.1", "no forward secrecy or no authenticated encryption"],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_protocols_and_suites_are_refused(
    listening: tuple[Settings, Listener], site: Site, version: ssl.TLSVersion, suites: str
) -> None:
    settings, listener = listening
    context = site.authority.client_context(site.client)
    context.set_ciphers(suites)
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", settings.dicom_port), timeout=10) as plain,
        pytest.raises((ssl.SSLError, ConnectionResetError)),
    ):
        context.wrap_socket(plain)
    deadline = time.monotonic() + 5
    while not listener.handshakes_refused and time.monotonic() < deadline:
        time.sleep(0.02)
    assert set(listener.handshakes_refused) <= {"unsupported protocol", "no shared cipher"}
    assert listener.handshakes_refused.total() == 1


def test_handshakes_that_never_end_hold_nobody_up_and_are_ended(
    settings: Settings, site: Site
) -> None:
    changed = secured(settings, site, dicom_acse_timeout_s=2.0)
    with running_listener(changed) as listener, ExitStack() as silent:
        address = ("127.0.0.1", changed.dicom_port)
        began = time.monotonic()
        loris = [
            silent.enter_context(socket.create_connection(address, timeout=10)) for _ in range(12)
        ]
        for connection in loris[:6]:
            connection.sendall(b"\x16\x03\x01\x02\x00")  # a record's head, and never its content
        echo = dcmtk("echoscu", changed, *as_client(site, site.client), *here(changed))
        assert echo.returncode == 0, echo.stderr
        assert time.monotonic() - began < 1.9, "the echo waited for the others"
        for connection in loris:
            assert connection.recv(1) == b""
        assert time.monotonic() - began < 8
        assert listener.handshakes_refused == {"no handshake in time": 12}


def test_one_address_holds_only_so_many_handshakes(settings: Settings, site: Site) -> None:
    changed = secured(settings, site)
    with running_listener(changed) as listener, ExitStack() as silent:
        address = ("127.0.0.1", changed.dicom_port)
        for _ in range(20):
            silent.enter_context(socket.create_connection(address, timeout=10))
        deadline = time.monotonic() + 5
        while listener.handshakes_refused.total() < 4 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert listener.handshakes_refused == {"too many handshakes": 4}


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "pynetdicom"])
@pytest.mark.parametrize("seed", range(3))
def test_many_messages_in_one_record_and_one_in_many_are_served(
    settings: Settings,
    site: Site,
    sessions: sessionmaker[Session],
    tmp_path: Path,
    direct: bool,
    seed: int,
) -> None:
    changed = secured(settings, site)
    dataset, data = _sent(tmp_path)
    command = store_command(str(dataset.SOPClassUID), str(dataset.SOPInstanceUID))
    stream = pdu(pdv(command, command=True, last=True))
    stream += b"".join(fragments(data, random.Random(seed)))
    echo = pdu(pdv(echo_command(), command=True, last=True))
    with (
        running_listener(changed, direct=direct),
        RawPeer(changed.dicom_port) as peer,
    ):
        peer.socket = site.authority.client_context(site.client).wrap_socket(peer.socket)
        peer.associate(str(dataset.SOPClassUID), changed.ae_title)
        for at in range(0, len(stream), 701):  # a record each
            peer.socket.sendall(stream[at : at + 701])
        assert peer.read_status() == StoreStatus.SUCCESS
        small = (stream + echo) * 2  # in one write: records hold the end of one and the next
        peer.socket.sendall(small)
        for _ in range(4):
            assert peer.read_status() == StoreStatus.SUCCESS
    (path,) = stored(sessions)
    assert data_set_bytes(changed.archive_path / path) == data


def test_plain_and_tls_are_served_side_by_side(
    settings: Settings, site: Site, sessions: sessionmaker[Session]
) -> None:
    changed = secured(settings, site, dicom_tls_port=free_port())
    with running_listener(changed):
        assert send(changed, radiograph()) == [StoreStatus.SUCCESS]
        echo = dcmtk(
            "echoscu",
            changed,
            *as_client(site, site.client),
            "127.0.0.1",
            changed.dicom_tls_port,
        )
        assert echo.returncode == 0, echo.stderr
    assert len(stored(sessions)) == 1


def test_a_listener_of_tls_alone_is_seen_to_be_ready(
    settings: Settings, site: Site, tmp_path: Path
) -> None:
    changed = secured(settings, site)
    child = Child(name="listener", command=["/bin/sleep", "60"], log_path=tmp_path / "listener.log")
    child.start()
    try:
        assert not service_ready("listener", changed, child)
        with running_listener(changed):
            assert service_ready("listener", changed, child)
    finally:
        assert child.process is not None
        child.process.kill()
        child.process.wait(10)


def _sent(folder: Path) -> tuple[Dataset, bytes]:
    dataset = radiograph()
    write_radiograph(dataset, folder / "sent.dcm")
    return dataset, data_set_bytes(folder / "sent.dcm")
