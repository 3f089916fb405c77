"""Audit events as DICOM audit messages. Source: PS3.15 section A.5, schema A.5.1.

The participant object is the study, by its UID. A patient's name is never in a message, and the
ID only where the site asked for it: whoever reads a log of accesses needs to know which study, and
the archive answers whose it is. That leaves out the patient object that A.5.3 wants.
"""

import base64
import json
from dataclasses import dataclass
from datetime import UTC
from typing import NamedTuple
from xml.etree.ElementTree import Element, SubElement, tostring

from common.tables import AuditEvent

DCM = "DCM"


class Kind(NamedTuple):
    """How an action of ours is told: event, what is done (C, R, U, D, E), type."""

    code: str
    text: str
    does: str
    type_code: str = ""
    type_text: str = ""


ACCESSED = Kind("110103", "DICOM Instances Accessed", "R")
PROCEDURE_CHANGED = Kind("110111", "Procedure Record", "U")
CONFIGURED = Kind("110113", "Security Alert", "E", "110131", "Software Configuration")
QUERY = Kind("110112", "Query", "E")

KINDS = {
    "study_opened": ACCESSED,
    "image_shown": ACCESSED,
    "heatmap_asked": ACCESSED,
    "order_priority_changed": Kind("110109", "Order Record", "U"),
    "worklist_viewed": QUERY,
    "operations_viewed": QUERY,
    "actor_named": Kind("110113", "Security Alert", "E", "110137", "User Security Attributes"),
    "instances_deleted": Kind("110105", "DICOM Study Deleted", "D"),
    "instances_received": Kind("110104", "DICOM Instances Transferred", "C"),
    "audit_exported": Kind("110101", "Audit Log Used", "R"),
}


@dataclass(frozen=True)
class Source:
    """Which of the site's systems tells."""

    host: str
    service: str
    process: int


def kind_of(event: AuditEvent) -> Kind:
    """Choose how an action is told: of a study, a change of its procedure; else configuration."""
    other = PROCEDURE_CHANGED if event.study_instance_uid else CONFIGURED
    return KINDS.get(event.action, other)


def audit_message(event: AuditEvent, source: Source, *, patient_id: str = "") -> bytes:
    """Write one event as an AuditMessage, UTF-8.

    Args:
        patient_id: Empty leaves the patient's participant object out.
    """
    kind = kind_of(event)
    message = Element("AuditMessage")
    _identify(message, event, kind)
    SubElement(
        message,
        "ActiveParticipant",
        UserID=event.actor,
        UserIsRequestor="true",
        NetworkAccessPointTypeCode="1",  # the machine's name
        NetworkAccessPointID=source.host,
    )
    application = SubElement(
        message,
        "ActiveParticipant",
        UserID=f"{source.service}@{source.host}",
        AlternativeUserID=str(source.process),
        UserIsRequestor="false",
    )
    _code(application, "RoleIDCode", "110150", "Application")
    sender = SubElement(
        message, "AuditSourceIdentification", AuditSourceID=f"firstread@{source.host}"
    )
    SubElement(sender, "AuditSourceTypeCode", {"csd-code": "4"})  # an application server
    _objects(message, event, kind, patient_id)
    return tostring(message, encoding="utf-8", xml_declaration=True)


def _identify(message: Element, event: AuditEvent, kind: Kind) -> None:
    identification = SubElement(
        message,
        "EventIdentification",
        EventActionCode=kind.does,
        EventDateTime=event.at.astimezone(UTC).isoformat(timespec="milliseconds"),
        EventOutcomeIndicator="0",
    )
    _code(identification, "EventID", kind.code, kind.text)
    if kind.type_code:
        _code(identification, "EventTypeCode", kind.type_code, kind.type_text)
    # Our own name of what was done, beside the standard's wider one.
    _code(identification, "EventTypeCode", event.action, event.action, system="99FIRSTREAD")


def _objects(message: Element, event: AuditEvent, kind: Kind, patient_id: str) -> None:
    detail = json.dumps(event.detail, sort_keys=True)
    if event.study_instance_uid:
        study = _object(message, event.study_instance_uid, "2", "3")
        _code(study, "ParticipantObjectIDTypeCode", "110180", "Study Instance UID")
        SubElement(study, "ParticipantObjectName").text = "study"
        _detail(study, detail)
        if patient_id:
            patient = _object(message, patient_id, "1", "1")
            _code(patient, "ParticipantObjectIDTypeCode", "2", "Patient Number", system="RFC-3881")
            SubElement(patient, "ParticipantObjectName").text = ""
        return
    subject = _object(message, event.action, "2", "24" if kind is QUERY else "13")
    _code(subject, "ParticipantObjectIDTypeCode", "10", "Search Criteria", system="RFC-3881")
    if kind is QUERY:
        query = SubElement(subject, "ParticipantObjectQuery")
        query.text = base64.b64encode(detail.encode()).decode()
    else:
        SubElement(subject, "ParticipantObjectName").text = event.action
        _detail(subject, detail)


def _object(message: Element, identifier: str, type_code: str, role: str) -> Element:
    return SubElement(
        message,
        "ParticipantObjectIdentification",
        ParticipantObjectID=identifier,
        ParticipantObjectTypeCode=type_code,
        ParticipantObjectTypeCodeRole=role,
    )


def _detail(subject: Element, detail: str) -> None:
    SubElement(
        subject,
        "ParticipantObjectDetail",
        type="firstread",
        value=base64.b64encode(detail.encode()).decode(),
    )


def _code(parent: Element, name: str, code: str, text: str, *, system: str = DCM) -> None:
    SubElement(parent, name, {"csd-code": code, "codeSystemName": system, "originalText": text})
