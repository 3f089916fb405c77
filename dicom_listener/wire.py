"""The few bytes of DICOM's upper layer and message exchange that C-STORE needs, read and written.

A PDU is type, reserved byte, length (big endian) and, for P-DATA-TF, presentation data values:
each a length, a context ID, a control byte and a fragment of a command or of a data set.

Source: PS3.8 sections 9.3.1 and 9.3.5 and annex E.2; PS3.7 sections 6.3 and 9.3.1.
"""

import struct
from typing import NamedTuple

P_DATA_TF = 0x04
PDU_HEADER = struct.Struct(">BxL")  # type, length of what follows
PDV_HEADER = struct.Struct(">LBB")  # length of the next two and the fragment, context, control
OF_COMMAND, IS_LAST = 1, 2  # bits of the control byte

_C_STORE_RQ, _C_STORE_RSP = 0x0001, 0x8001
_NO_DATA_SET = 0x0101
_ELEMENT = struct.Struct("<HHL")
_SOP_CLASS, _COMMAND, _MESSAGE_ID, _RESPONDED_TO = 0x0002, 0x0100, 0x0110, 0x0120
_DATA_SET_TYPE, _STATUS, _ERROR_COMMENT, _SOP_INSTANCE = 0x0800, 0x0900, 0x0902, 0x1000


class StoreRequest(NamedTuple):
    """The command of a C-STORE; UIDs as they came, without padding."""

    message_id: int
    sop_class_uid: str
    sop_instance_uid: str


def read_store_request(command: bytes) -> StoreRequest | None:
    """Read a whole command set; None if it is anything but a complete C-STORE with a data set."""
    values: dict[int, bytes] = {}
    at = 0
    while at + _ELEMENT.size <= len(command):
        group, element, length = _ELEMENT.unpack_from(command, at)
        at += _ELEMENT.size
        if group != 0 or at + length > len(command):
            return None
        values[element] = command[at : at + length]
        at += length
    numbers = [_number(values.get(key)) for key in (_COMMAND, _MESSAGE_ID, _DATA_SET_TYPE)]
    kind, message_id, data_set = numbers
    sop_class, instance = (_uid(values.get(key)) for key in (_SOP_CLASS, _SOP_INSTANCE))
    if at != len(command) or kind != _C_STORE_RQ or message_id is None or not instance:
        return None
    if data_set is None or data_set == _NO_DATA_SET:
        return None
    return StoreRequest(message_id, sop_class, instance)


def store_response(
    context_id: int, request: StoreRequest, sop_class_uid: str, status: int, comment: str
) -> bytes:
    """Write the P-DATA-TF of a C-STORE response, complete in one fragment."""
    instance = request.sop_instance_uid[:64].encode("ascii", "replace")
    elements = [
        _element(_SOP_CLASS, _even(sop_class_uid.encode("ascii", "replace"), b"\0")),
        _element(_COMMAND, struct.pack("<H", _C_STORE_RSP)),
        _element(_RESPONDED_TO, struct.pack("<H", request.message_id)),
        _element(_DATA_SET_TYPE, struct.pack("<H", _NO_DATA_SET)),
        _element(_STATUS, struct.pack("<H", status)),
    ]
    if comment:
        elements.append(_element(_ERROR_COMMENT, _even(comment.encode("ascii", "replace"), b" ")))
    elements.append(_element(_SOP_INSTANCE, _even(instance, b"\0")))
    body = b"".join(elements)
    command = _element(0, struct.pack("<L", len(body))) + body
    value = PDV_HEADER.pack(len(command) + 2, context_id, OF_COMMAND | IS_LAST) + command
    return PDU_HEADER.pack(P_DATA_TF, len(value)) + value


def _element(element: int, value: bytes) -> bytes:
    return _ELEMENT.pack(0, element, len(value)) + value


def _even(value: bytes, pad: bytes) -> bytes:
    return value + pad * (len(value) % 2)


def _number(value: bytes | None) -> int | None:
    return None if value is None or len(value) != 2 else int.from_bytes(value, "little")


def _uid(value: bytes | None) -> str:
    return (value or b"").decode("ascii", "replace").strip(" \0")
