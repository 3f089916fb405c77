"""A DICOM peer made of bytes: it says what no library would let it say."""

import random
import socket
import struct
from collections.abc import Iterator

from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context

ASSOCIATE_AC, P_DATA_TF, RELEASE_RQ, RELEASE_RP, ABORT = 2, 4, 5, 6, 7
CONTEXT_ID = 1


class RawPeer:
    """One connection; ``associate`` first, then whatever bytes are wanted."""

    def __init__(self, port: int, timeout_s: float = 20.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> "RawPeer":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def associate(self, sop_class_uid: str, called: str = "FIRSTREAD") -> None:
        """Negotiate one class in Explicit VR Little Endian under context 1."""
        self.socket.sendall(association_request(sop_class_uid, called))
        kind, _ = self.read_pdu()
        assert kind == ASSOCIATE_AC, f"PDU of type {kind}"

    def read_pdu(self) -> tuple[int, bytes]:
        """Give the type and the content of the next PDU; type 0 if the connection ended."""
        head = self._read(6)
        if len(head) < 6:
            return 0, b""
        kind, length = struct.unpack(">BxL", head)
        return kind, self._read(length)

    def read_status(self) -> int | None:
        """Give the status of the next response; None if the association ended instead."""
        kind, content = self.read_pdu()
        if kind != P_DATA_TF:
            return None
        at = content.index(struct.pack("<HHL", 0, 0x0900, 2))
        return int.from_bytes(content[at + 8 : at + 10], "little")

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                some = self.socket.recv(count - len(data))
            except ConnectionResetError:
                return data
            if not some:
                return data
            data += some
        return data


def association_request(sop_class_uid: str, called: str) -> bytes:
    """Write an A-ASSOCIATE-RQ that proposes one context."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = "RAWPEER", called
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = 16384
    implementation.implementation_class_uid = "1.2.3.4"
    primitive.user_information = [length, implementation]
    context = build_context(sop_class_uid, ExplicitVRLittleEndian)
    context.context_id = CONTEXT_ID
    primitive.presentation_context_definition_list = [context]
    request = A_ASSOCIATE_RQ()
    request.from_primitive(primitive)
    return bytes(request.encode() or b"")


def store_command(sop_class_uid: str, sop_instance_uid: str, message_id: int = 1) -> bytes:
    """Write the command set of a C-STORE request."""
    return _command(
        _element(0x0002, sop_class_uid.encode()),
        _element(0x0100, struct.pack("<H", 1)),
        _element(0x0110, struct.pack("<H", message_id)),
        _element(0x0700, struct.pack("<H", 0)),
        _element(0x0800, struct.pack("<H", 1)),
        _element(0x1000, sop_instance_uid.encode()),
    )


def echo_command() -> bytes:
    """Write the command set of a C-ECHO request; it fits any context here, as peers have it."""
    return _command(
        _element(0x0002, b"1.2.840.10008.1.1"),
        _element(0x0100, struct.pack("<H", 0x30)),
        _element(0x0110, struct.pack("<H", 7)),
        _element(0x0800, struct.pack("<H", 0x0101)),
    )


def action_command(message_id: int = 9) -> bytes:
    """Write the command set of an N-ACTION that asks for storage commitment."""
    return _command(
        _element(0x0003, b"1.2.840.10008.1.20.1"),
        _element(0x0100, struct.pack("<H", 0x0130)),
        _element(0x0110, struct.pack("<H", message_id)),
        _element(0x0800, struct.pack("<H", 1)),
        _element(0x1001, b"1.2.840.10008.1.20.1.1"),
        _element(0x1008, struct.pack("<H", 1)),
    )


def _command(*elements: bytes) -> bytes:
    body = b"".join(elements)
    return _element(0, struct.pack("<L", len(body))) + body


def _element(number: int, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HHL", 0, number, len(value)) + value


def pdv(data: bytes, *, command: bool, last: bool, context_id: int = CONTEXT_ID) -> bytes:
    """Write one presentation data value."""
    return struct.pack(">LBB", len(data) + 2, context_id, command | last << 1) + data


def pdu(*values: bytes, kind: int = P_DATA_TF) -> bytes:
    """Write one PDU."""
    content = b"".join(values)
    return struct.pack(">BxL", kind, len(content)) + content


def fragments(data: bytes, chooser: random.Random) -> Iterator[bytes]:
    """Cut a data set into PDUs of several fragments of odd and even sizes, even empty ones."""
    at = 0
    while at < len(data) or not data:
        values = []
        for _ in range(chooser.randint(1, 3)):
            size = chooser.choice([0, 1, 2, 7, 100, 5000])
            part = data[at : at + size]
            at += len(part)
            values.append(pdv(part, command=False, last=at >= len(data)))
            if at >= len(data):
                break
        yield pdu(*values)
        if at >= len(data):
            return
