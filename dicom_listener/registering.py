"""An object's rows: patient, study, series, instance, analysis, place on the worklist, all or none.

Rows are taken in one order (a new patient's, the study's, its place on the worklist, the patient's
to fill in, series, instance) and each object has one of each: no two transactions can wait for one
another in a circle. The study's row is locked throughout, so objects of one study are registered
one after the other.

The first object of a study that nobody has seen takes one round trip, and those of several senders
may share it and its commit; a later one takes two. Two groups that share may meet in a circle: then
neither waits for long, and each of their objects is written by itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

import psycopg
from psycopg.errors import DivisionByZero

from common.errors import StorageUnavailableError
from common.ranking import AnalysisView, StudyOutcome, study_outcome
from common.settings import Settings
from common.states import (
    AnalysisState,
    OrderPriority,
    Outcome,
    ReadingState,
    SetAsideKind,
)
from common.worklist import ReadingFacts, StudyFacts, derive_values, study_lane
from dicom_listener import routing, statements
from dicom_listener.attributes import Attributes, urgency
from dicom_listener.clashes import Clash, Known, Received, relation
from dicom_listener.ledger import STALE, Connection
from dicom_listener.prepared import BEGIN, COMMIT, Row, ask
from dicom_listener.recent import Recent

# What a later object may fill in where the earlier ones said nothing; never overwritten.
_PATIENT_TEXTS = ("patient_name", "patient_birth_date", "patient_sex")
_STUDY_TEXTS = ("accession_number", "study_description", "study_date", "study_time", "patient_age")
_PRIORITIES = ("requested_procedure_priority", "study_priority_id")

# Each time another sender was faster the rows are there, and the next look finds them.
_LOOKS = 5

Values = dict[str, Any]


@dataclass(frozen=True)
class Registered:
    """A new instance, and the analysis to ring for; None if no pipeline takes it."""

    queued_analysis_id: int | None


def look_and_add(
    connection: Connection, received: Received, values: Values, settings: Settings, recent: Recent
) -> Registered | Known | Clash:
    """Look what is there, write what is not, and commit it. A clash writes nothing.

    Safe to repeat: the same object again is ``Known`` and changes nothing. Then, and after a
    clash, the transaction is left open.

    Raises:
        StorageUnavailableError: too many senders of the same study at once.
    """
    for _ in range(_LOOKS):
        look = _look(connection, values)
        study, facts = look.study, look.facts
        recent.saw_clock(facts.now)
        if study is None and facts.study_id is not None:
            connection.rollback()  # it came between the two statements
            continue
        contradiction = relation(facts, received)
        if contradiction is None and study and not _is_patient(facts, values):
            contradiction = Clash(SetAsideKind.PATIENT_DIFFERS)
        if contradiction is not None:
            return contradiction
        if facts.series_id is not None and (study is None or facts.series_study_id != study.id):
            return Clash(SetAsideKind.HIERARCHY_DIFFERS)
        if study is None:
            analysis_id = _begin_study(connection, values, facts.now, settings)
        else:
            analysis_id = _add_to_study(connection, values, look, settings)
        if analysis_id is not None:
            return registered(analysis_id, values)
        connection.rollback()  # another sender was faster
    raise StorageUnavailableError("database: other senders were faster each time")


def registered(analysis_id: int, values: Values) -> Registered:
    """Say what has come of an object whose rows are there now."""
    is_queued = values["analysis_state"] == AnalysisState.QUEUED.value
    return Registered(analysis_id if is_queued else None)


def values_of(received: Received, settings: Settings) -> Values:
    """Collect what one object writes, under the names that the statements use."""
    attributes = received.attributes
    values = {**vars(received), **attributes._asdict()}
    del values["attributes"]
    values["issuer"], values["patient_id"] = _identity(attributes, settings)
    values["patient_id_stated"] = bool(attributes.patient_id)
    # Without a unit of work, or the word that there is none, an instance would be lost.
    is_routed = received.pipeline != routing.NONE
    state = AnalysisState.QUEUED if is_routed else AnalysisState.NOT_ELIGIBLE
    values["analysis_state"] = state.value
    values["analysis_reasons"] = [] if is_routed else [routing.refusal(attributes.sop_class_uid)]
    return values


def _at(values: Values, now: datetime) -> Values:
    """Give the instants that an object registered now writes."""
    is_queued = values["analysis_state"] == AnalysisState.QUEUED.value
    return {"now": now, "finished_at": None if is_queued else now}


class Look(NamedTuple):
    """What the ledger says under the locks of the study and its place; rows of the statements."""

    study: Row  # None if it is not there
    facts: Row
    analyses: list[Row]


def _look(connection: Connection, values: Values) -> Look:
    """Begin, lock the study if it is there, then find what the object will stand beside."""
    _, study, _, facts, analyses = ask(
        connection,
        (BEGIN, {}),
        (statements.LOCKED_STUDY, values),
        (statements.LOCKED_ITEM, values),
        (statements.FACTS, values),
        (statements.ANALYSES, values),
    )
    return Look(study[0] if study else None, facts[0], analyses)


def new_study(values: Values, now: datetime, settings: Settings) -> Values:
    """Give all that the first object of a study writes."""
    study = StudyFacts(
        acquired_at=values["acquired_at"],
        first_received_at=now,
        requested_procedure_priority=values["requested_procedure_priority"],
        study_priority_id=values["study_priority_id"],
        source_ae_title=values["source_ae_title"],
    )
    item = derive_values(
        study,
        None,
        _outcome_of_first(values["pipeline"], values["analysis_state"]),
        instances=lambda: 1,
        settled=False,
        ai_ranking=True,  # nothing is flagged yet; the statement notes what the site says
        now=now,
        settings=settings,
    )
    return values | _at(values, now) | _plain(item) | {"lane": int(study_lane(study, settings))}


def begin_studies(connection: Connection, studies: Sequence[Values]) -> Sequence[Row | None]:
    """Begin several studies in one commit; None for each that has to be looked at by itself.

    In the order of their names, so that two listeners seldom wait for one another in a circle.
    """
    rows: list[Row | None] = [None] * len(studies)
    order = sorted(range(len(studies)), key=lambda number: _names_of(studies[number]))
    try:
        answers = ask(connection, *((statements.NEW_STUDY, studies[number]) for number in order))
    except psycopg.Error as error:  # one of them may be at fault for all
        if connection.closed or isinstance(error, STALE):
            raise
        return rows
    for number, (row,) in zip(order, answers, strict=True):
        rows[number] = None if row.id is None else row
    return rows


def _names_of(study: Values) -> tuple[str, ...]:
    names = ("issuer", "patient_id", "study_instance_uid", "series_instance_uid")
    return tuple(study[name] for name in names)


def _begin_study(
    connection: Connection, values: Values, now: datetime, settings: Settings
) -> int | None:
    """Write and commit the first object of a study; None if one of its names is taken."""
    every = new_study(values, now, settings)
    try:
        begun, _ = ask(connection, (statements.NEW_STUDY, every), (COMMIT, {}))
    except DivisionByZero:  # another sender takes one of them in this instant
        return None
    return begun[0].id


def _add_to_study(
    connection: Connection, values: Values, look: Look, settings: Settings
) -> int | None:
    """Write and commit a later object; None if another sender was faster at one of its rows."""
    study, facts, analyses = look
    followed = _follow_up(study, values, facts.now)
    now_stands = StudyFacts(
        first_received_at=study.first_received_at,
        source_ae_title=study.source_ae_title,
        **{name: followed[name] for name in ("acquired_at", *_PRIORITIES)},
    )
    item = derive_values(
        now_stands,
        _reading(facts),
        study_outcome(
            [*map(_view, analyses), _own_view(values["pipeline"], values["analysis_state"])]
        ),
        instances=lambda: facts.instances + 1,
        settled=False,
        ai_ranking=facts.ai_ranking,
        now=facts.now,
        settings=settings,
    )
    every = values | followed | _at(values, facts.now) | _plain(item)
    every |= {"study_id": study.id, "series_id": facts.series_id}
    every["lane"] = int(study_lane(now_stands, settings))
    calls = [(statements.LATER_OBJECT, every), (COMMIT, {})]
    if filled := _filled_patient(facts, values):
        calls.insert(0, (statements.FILLED_PATIENT, filled | {"patient_row": study.patient_id}))
    try:
        *_, added, _ = ask(connection, *calls)
    except DivisionByZero:
        return None
    return added[0].id


def _identity(attributes: Attributes, settings: Settings) -> tuple[str, str]:
    """Give issuer and ID. Without PatientID an object is a person of its own study."""
    if not attributes.patient_id:
        return "", attributes.study_instance_uid
    return attributes.issuer_of_patient_id or settings.default_issuer, attributes.patient_id


def _is_patient(patient: Row, values: Values) -> bool:
    """Say whether the study's patient is this one. An issuer that one side omits is no other."""
    if patient.patient_id_stated != values["patient_id_stated"]:
        return False
    one_omits = not values["issuer_of_patient_id"] or not patient.issuer_of_patient_id
    return patient.patient_id == values["patient_id"] and (
        one_omits or patient.issuer_of_patient_id == values["issuer"]
    )


def _filled_patient(patient: Row, values: Values) -> Values:
    """Give the patient's texts if this object says something where they were blank."""
    if not any(values[name] and not getattr(patient, name) for name in _PATIENT_TEXTS):
        return {}
    return {name: getattr(patient, name) or values[name] for name in _PATIENT_TEXTS}


def _follow_up(study: Row, values: Values, now: datetime) -> Values:
    """Let a later object of the study add to it: time, what was blank, a more urgent order."""
    followed = {name: getattr(study, name) or values[name] for name in _STUDY_TEXTS}
    followed["last_received_at"] = max(study.last_received_at, now)
    followed["acquired_at"] = study.acquired_at or values["acquired_at"]
    for name in _PRIORITIES:
        stood, said = getattr(study, name), values[name]
        is_more = said and (not stood or urgency(said) < urgency(stood))
        followed[name] = said if is_more else stood
    return followed


@lru_cache(maxsize=64)  # a pipeline and a state say all of it
def _outcome_of_first(pipeline: str, state: str) -> StudyOutcome:
    return study_outcome([_own_view(pipeline, state)])


def _own_view(pipeline: str, state: str) -> AnalysisView:
    """See the analysis that is about to be written as its study's outcome will."""
    return AnalysisView(
        id=0,
        unit=(None, None, pipeline),  # of an instance that has no number yet
        run=0,
        state=AnalysisState(state),
        outcome=None,
        probability=None,
        threshold=None,
    )


def _view(row: Row) -> AnalysisView:
    return AnalysisView(
        id=row.id,
        unit=(row.instance_id, row.series_id, row.pipeline),
        run=row.run,
        state=AnalysisState(row.state),
        outcome=None if row.outcome is None else Outcome(row.outcome),
        probability=row.probability,
        threshold=row.threshold,
    )


def _reading(facts: Row) -> ReadingFacts | None:
    if facts.reading_state is None:
        return None
    priority = None if facts.order_priority is None else OrderPriority(facts.order_priority)
    return ReadingFacts(ReadingState(facts.reading_state), facts.instances_read, priority)


def _plain(item: Mapping[str, Any]) -> Values:
    """Give enums as their values, which is how the columns hold them."""
    return {name: getattr(value, "value", value) for name, value in item.items()}
