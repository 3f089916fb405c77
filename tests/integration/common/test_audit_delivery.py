"""Audit messages over syslog: each at least once, over TLS to whom we trust, whatever fails."""

import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element, fromstring

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session, sessionmaker

from common.audit.delivery import Delivery
from common.audit.key import read_key
from common.audit.verification import read_heads, verify
from common.errors import ConfigurationError
from common.reading import audit, claim_study, mark_read, set_order_priority, switch_ai_ranking
from common.settings import Settings, get_settings
from common.states import OrderPriority
from common.tables import AuditEvent, ModelVersion, Patient, Study
from tests.certificates import Authority
from tests.ledger import add_model, add_study
from tests.syslog_receiver import Receiver, receiving

Sessions = sessionmaker[Session]

# Source: PS3.15 section A.5.1: element -> (attributes that must be, that may be, children in order)
CODE = ({"csd-code", "codeSystemName", "originalText"}, {"displayName"}, ())
SCHEMA: dict[str, tuple[set[str], set[str], tuple[str, ...]]] = {
    "AuditMessage": (
        set(),
        set(),
        (
            "EventIdentification",
            "ActiveParticipant",
            "AuditSourceIdentification",
            "ParticipantObjectIdentification",
        ),
    ),
    "EventIdentification": (
        {"EventDateTime", "EventOutcomeIndicator"},
        {"EventActionCode"},
        ("EventID", "EventTypeCode", "EventOutcomeDescription"),
    ),
    "EventID": CODE,
    "EventTypeCode": CODE,
    "RoleIDCode": CODE,
    "ParticipantObjectIDTypeCode": CODE,
    "ActiveParticipant": (
        {"UserID", "UserIsRequestor"},
        {
            "AlternativeUserID",
            "UserName",
            "NetworkAccessPointID",
            "NetworkAccessPointTypeCode",
        },
        ("RoleIDCode", "MediaIdentifier"),
    ),
    "AuditSourceIdentification": (
        {"AuditSourceID"},
        {"AuditEnterpriseSiteID"},
        ("AuditSourceTypeCode",),
    ),
    "AuditSourceTypeCode": ({"csd-code"}, {"codeSystemName", "originalText"}, ()),
    "ParticipantObjectIdentification": (
        {"ParticipantObjectID"},
        {
            "ParticipantObjectTypeCode",
            "ParticipantObjectTypeCodeRole",
            "ParticipantObjectDataLifeCycle",
            "ParticipantObjectSensitivity",
        },
        (
            "ParticipantObjectIDTypeCode",
            "ParticipantObjectName",
            "ParticipantObjectQuery",
            "ParticipantObjectDetail",
            "ParticipantObjectDescription",
        ),
    ),
    "ParticipantObjectName": (set(), set(), ()),
    "ParticipantObjectQuery": (set(), set(), ()),
    "ParticipantObjectDetail": ({"type", "value"}, set(), ()),
}
ONCE = {"EventIdentification", "AuditSourceIdentification", "EventID"}


def check_structure(element: Element) -> None:
    """Hold an element and all below it against the schema."""
    must, may, children = SCHEMA[element.tag]
    assert must <= set(element.attrib) <= must | may, (element.tag, element.attrib)
    tags = [child.tag for child in element]
    assert set(tags) <= set(children), (element.tag, tags)
    assert tags == sorted(tags, key=children.index), (element.tag, tags)
    for tag in ONCE & set(children):
        assert tags.count(tag) == 1, (element.tag, tags)
    if element.tag == "AuditMessage":
        assert tags.count("ActiveParticipant") >= 1
    if element.tag == "ParticipantObjectIdentification":
        assert tags.count("ParticipantObjectIDTypeCode") == 1
        named = tags.count("ParticipantObjectName") + tags.count("ParticipantObjectQuery")
        assert named == 1, tags
    if element.tag == "EventIdentification":
        assert element.get("EventActionCode") in set("CRUDE")
        assert element.get("EventOutcomeIndicator") in {"0", "4", "8", "12"}
    for child in element:
        check_structure(child)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "site")


@pytest.fixture
def receiver(authority: Authority) -> Iterator[Receiver]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.sign("syslog", host="localhost"))
    with receiving(context) as running:
        yield running


def told(settings: Settings, receiver: Receiver, scheme: str = "tls", **more: object) -> Settings:
    address = f"{scheme}://localhost:{receiver.port}"
    return settings.model_copy(update={"audit_syslog": address, **more})


def delivery(engine: Engine, sessions: Sessions, settings: Settings) -> Delivery:
    return Delivery(engine, sessions, settings)


def parsed(receiver: Receiver) -> list[Element]:
    bodies = receiver.messages("DICOM+RFC3881")
    return [fromstring(body) for body in bodies]  # noqa: S314 - our own


def act(sessions: Sessions, settings: Settings) -> Study:
    """Let a reader do one of each."""
    with sessions.begin() as session:
        model = session.scalar(select(ModelVersion.id)) or add_model(session)
        study = add_study(session, settings, model_version_id=model)
        session.get_one(Patient, study.patient_id).patient_name = "VERY^SECRET"
    with sessions.begin() as session:
        audit(session, "anna", "worklist_viewed", searched=True)
        audit(session, "anna", "study_opened", study.study_instance_uid, instances=1)
        audit(session, "anna <&\u202e>", "actor_named", before="root")
        assert claim_study(session, study, "anna", settings)
        set_order_priority(session, study, "anna", OrderPriority.STAT, settings)
        mark_read(session, study, "anna", settings, instances_seen=1)
        switch_ai_ranking(session, "anna", on=False)
        audit(session, "system", "instances_deleted", study.study_instance_uid, sop=["2.25.1"])
    return study


def test_every_event_arrives_over_tls_as_an_audit_message(
    sessions: Sessions, engine: Engine, settings: Settings, receiver: Receiver, authority: Authority
) -> None:
    study = act(sessions, settings)
    own = told(settings, receiver, audit_syslog_ca=authority.certificate)
    assert delivery(engine, sessions, own).deliver_once() == 8
    messages = parsed(receiver)
    assert len(messages) == 8
    for message in messages:
        check_structure(message)
    codes = Counter(element.get("csd-code") for one in messages for element in one.iter("EventID"))
    assert codes == {
        "110112": 1, "110103": 1, "110113": 2, "110111": 2, "110109": 1, "110105": 1,
    }  # fmt: skip
    objects = [one for m in messages for one in m.iter("ParticipantObjectIdentification")]
    uid = study.study_instance_uid
    assert sum(one.get("ParticipantObjectID") == uid for one in objects) == 5
    everything = b"".join(receiver.frames)
    with sessions() as session:
        patient = session.get_one(Patient, study.patient_id)
    assert b"SECRET" not in everything
    assert f'"{patient.patient_id}"'.encode() not in everything
    assert delivery(engine, sessions, own).deliver_once() == 0


def test_the_patients_id_is_told_only_where_the_site_says_so(
    sessions: Sessions, engine: Engine, settings: Settings
) -> None:
    study = act(sessions, settings)
    with receiving() as receiver:
        own = told(settings, receiver, "tcp", audit_patient_id=True)
        delivery(engine, sessions, own).deliver_once()
        messages = parsed(receiver)
    for message in messages:
        check_structure(message)
    with sessions() as session:
        patient_id = session.get_one(Patient, study.patient_id).patient_id
    ids = [o.get("ParticipantObjectID") for m in messages for o in m.iter() if len(o)]
    assert ids.count(patient_id) == 5
    assert b"SECRET" not in b"".join(receiver.frames)


def test_a_server_that_nobody_vouches_for_gets_nothing(
    sessions: Sessions, engine: Engine, settings: Settings, receiver: Receiver, tmp_path: Path
) -> None:
    act(sessions, settings)
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other", "stranger")
    own = told(settings, receiver, audit_syslog_ca=stranger.certificate)
    with pytest.raises(ssl.SSLCertVerificationError):
        delivery(engine, sessions, own).deliver_once()
    assert receiver.frames == []


def test_what_a_broken_server_did_not_take_is_sent_later(
    sessions: Sessions, engine: Engine, settings: Settings
) -> None:
    act(sessions, settings)
    with receiving() as receiver:
        sender = delivery(engine, sessions, told(settings, receiver, "tcp"))
        for _ in range(3):
            receiver.reset_next = 1
            with pytest.raises(OSError, match=r"reset|connected|pipe"):
                sender.deliver_once()
        assert receiver.resets == 3
        act(sessions, settings)
        assert sender.deliver_once() == 16
        assert len(set(receiver.messages("DICOM+RFC3881"))) == 16
        port = receiver.port
    act(sessions, settings)
    gone = settings.model_copy(update={"audit_syslog": f"tcp://localhost:{port}"})
    with pytest.raises(ConnectionRefusedError):
        delivery(engine, sessions, gone).deliver_once()


def test_heads_are_told_and_betray_an_end_that_was_cut_off(
    sessions: Sessions, engine: Engine, settings: Settings
) -> None:
    act(sessions, settings)
    with receiving() as receiver:
        sender = delivery(engine, sessions, told(settings, receiver, "tcp"))
        sender.deliver_once()
        sender.deliver_once()
        heads = [body.decode() for body in receiver.messages("HEAD")]
    assert len(heads) == 1
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE audit_event DISABLE TRIGGER ALL")
        gone = connection.exec_driver_sql("DELETE FROM audit_event WHERE sequence >= 6")
        assert gone.rowcount == 3
    key = read_key(get_settings())
    with sessions() as session:
        assert verify(session, key).problems == []  # without a record nobody can tell
        (problem,) = verify(session, key, read_heads(heads)).problems
    assert "cut off behind 5: 8 were recorded" in str(problem)


def test_plain_udp_takes_one_message_a_datagram(
    sessions: Sessions, engine: Engine, settings: Settings
) -> None:
    act(sessions, settings)
    with receiving(datagrams=True) as receiver:
        delivery(engine, sessions, told(settings, receiver, "udp")).deliver_once()
        deadline = time.monotonic() + 10
        while len(receiver.frames) < 9:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert len(receiver.messages("DICOM+RFC3881")) == 8


def test_delivery_goes_on_by_itself_when_the_server_is_back(
    sessions: Sessions, engine: Engine, settings: Settings
) -> None:
    act(sessions, settings)
    with receiving() as receiver:
        receiver.reset_next = 2
        sender = delivery(engine, sessions, told(settings, receiver, "tcp"))
        stop = threading.Event()
        thread = threading.Thread(
            target=sender.run, args=(stop,), kwargs={"every_s": 0.05, "heads_s": 0.1}
        )
        thread.start()
        deadline = time.monotonic() + 20
        while len(receiver.frames) < 9:
            assert time.monotonic() < deadline, receiver.frames
            time.sleep(0.05)
        stop.set()
        thread.join(10)
    assert receiver.resets == 2
    with sessions() as session:
        count = len(session.scalars(select(AuditEvent)).all())
    assert len(set(receiver.messages("DICOM+RFC3881"))) == count


def test_a_certificate_that_cannot_be_read_stops_the_process_with_its_name(
    sessions: Sessions, engine: Engine, settings: Settings, tmp_path: Path
) -> None:
    wrong = settings.model_copy(
        update={"audit_syslog": "tls://localhost:1", "audit_syslog_ca": tmp_path / "none.pem"}
    )
    with pytest.raises(ConfigurationError, match="FIRSTREAD_AUDIT_SYSLOG_CA"):
        delivery(engine, sessions, wrong)
