"""The doors by which the services change the ledger, and a book of what they said.

``accepted`` holds what each final row must say, ``discarded`` counts the results that came late.
Safe to call from several threads.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from itertools import count
from threading import Lock
from typing import Any

from sqlalchemy import Engine, func, select, text, update
from sqlalchemy.orm import Session, sessionmaker

from common.lifecycle import Claim, activate, claim, fail, finish, refuse
from common.queue import make_celery
from common.rerunning import reprocess, retry
from common.settings import Settings
from common.states import AnalysisState, ModelState, Outcome
from common.tables import Analysis, ModelVersion, Study
from dicom_listener.attributes import Attributes
from dicom_listener.clashes import Clash, Known, Received
from dicom_listener.ledger import Connection
from dicom_listener.registering import Registered
from dicom_listener.registrar import Registrar
from tests.ledger import result
from worker.upkeep import Upkeep

PIPELINE, STUDIES, LEASE_S = "chest_xray", 3, 600.0
RADIOGRAPH, REPORT = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.88.11"
TABLES = (
    *("worklist_item", "reading", "analysis", "set_aside", "instance", "series", "study"),
    *("patient", "model_version"),
)
numbers = count(1)


class Doors:
    """What the listener, workers, upkeep and people may do."""

    engine: Engine
    sessions: sessionmaker[Session]
    settings: Settings

    def open_doors(self) -> None:
        """Start with a ledger in which nothing is but the switch."""
        self.upkeep = Upkeep(self.engine, self.sessions, make_celery("memory://"), self.settings)
        self.registrar = Registrar(self.engine, self.settings)
        self.example = next(numbers)
        self.received: list[Received] = []
        self.held: list[Claim] = []  # ours and, as time goes by, others' too
        self.tokens: set[tuple[int, int]] = set()
        self.accepted: dict[int, tuple[AnalysisState, float | None]] = {}
        self.discarded = 0
        self.lock = Lock()
        with self.sessions.begin() as session:
            for table in TABLES:
                session.execute(text(f"DELETE FROM {table}"))  # noqa: S608 - our own names
            session.execute(text("UPDATE site SET ai_ranking = true"))

    def _register(self, sent: Received) -> Registered | Known | Clash:
        return self.registrar.register(sent, nothing_is_deleted)

    def _receive(self, study: int, word: str, routed: bool) -> None:
        uid = f"2.25.{self.example}.{study}"
        sent = make_received(uid, next(numbers), word)
        sent = replace(sent, source_ae_title="CT1" if study == 1 else "CR1")
        if not routed:
            attributes = sent.attributes._replace(sop_class_uid=REPORT)
            sent = replace(sent, attributes=attributes, pipeline="none")
        found = self._register(sent)
        assert isinstance(found, Registered)
        assert (found.queued_analysis_id is not None) == routed
        with self.lock:
            self.received.append(sent)

    def _take(self, *, oldest: bool, live_only: bool = False) -> Claim | None:
        with self.sessions() as session:
            live = self._live(session)
        versions = [live] if live_only and live is not None else self._versions()
        with self.sessions.begin() as session:
            claimed = claim(
                session, worker="w", model_version_ids=versions, lease_s=LEASE_S, oldest=oldest
            )
        if claimed is not None:
            self._hold(claimed)
        return claimed

    def _hold(self, claimed: Claim) -> None:
        with self.lock:
            token = claimed.analysis_id, claimed.attempt
            assert token not in self.tokens, "a row was claimed twice under one token"
            self.tokens.add(token)
            self.held = [*self.held[-11:], claimed]

    def _finish(self, held: Claim, probability: float, abstained: bool) -> bool:
        said = result(probability)
        if abstained:
            said = replace(said, outcome=Outcome.ABSTAINED)
        with self.sessions.begin() as session:
            stored = finish(session, held, said, self.settings)
        return self._note(held, stored, (AnalysisState.DONE, probability))

    def _refuse(self, held: Claim) -> bool:
        with self.sessions.begin() as session:
            stored = refuse(session, held, ["lateral"], self.settings)
        return self._note(held, stored, (AnalysisState.NOT_ELIGIBLE, None))

    def _fail(self, held: Claim, for_good: bool) -> bool:
        with self.sessions.begin() as session:
            stored = fail(session, held, "no decoder", self.settings, for_good=for_good)
            last = session.get_one(Analysis, held.analysis_id).failures >= (
                self.settings.max_failures
            )
        final = stored and (for_good or last)
        return self._note(held, stored, (AnalysisState.FAILED, None) if final else None)

    def _note(
        self, held: Claim, stored: bool, end: tuple[AnalysisState, float | None] | None
    ) -> bool:
        with self.lock:
            if not stored:
                self.discarded += 1
            elif end is not None:
                assert held.analysis_id not in self.accepted, "two results were accepted"
                self.accepted[held.analysis_id] = end
        return stored

    def _guarded(self, pick: int, do: Callable[[Claim], bool]) -> None:
        """Write under an attempt: a current one writes, a stale one changes its count alone."""
        if not self.held:
            return
        held = self._of(self.held, pick)
        is_current, before = self._is_current(held), self._rows()
        assert do(held) == is_current
        if not is_current:
            after = self._rows()
            row = next(row for row in after["analysis"] if row["id"] == held.analysis_id)
            row["late_results"] -= 1
            assert after == before, "a stale attempt wrote"

    def _activate(self, pick: int | None) -> None:
        with self.sessions.begin() as session:
            known = session.scalars(select(ModelVersion).order_by(ModelVersion.id)).all()
            if pick is not None and known:
                version = self._of(known, pick)
            else:
                number = next(numbers)
                version = ModelVersion(
                    pipeline=PIPELINE,
                    name="test",
                    version=str(number),
                    bundle_sha256=hashlib.sha256(f"bundle {number}".encode()).hexdigest(),
                    folder="/nowhere",
                    threshold=0.5,
                    state=ModelState.CANDIDATE,
                )
                session.add(version)
                session.flush()
            activate(session, version)

    def _reprocess(self, study: int) -> None:
        with self.sessions.begin() as session:
            found = self._study(session, study)
            if found is not None:
                reprocess(session, found.id, self.settings)

    def _retry(self) -> None:
        # The lock spans call and note: a row that is queued again may be taken at once.
        with self.lock, self.sessions.begin() as session:
            for analysis_id in retry(session, list(self.accepted), self.settings):
                del self.accepted[analysis_id]

    def _lapse(self, claims: Iterable[Claim]) -> None:
        with self.sessions.begin() as session:
            for held in claims:
                session.execute(
                    update(Analysis)
                    .where(Analysis.id == held.analysis_id, Analysis.state == AnalysisState.RUNNING)
                    .values(lease_until=func.clock_timestamp() - timedelta(seconds=1))
                )

    def _age(self, study: int | None, by: timedelta) -> None:
        """Move a study, or all, into the past as a whole."""
        uid = "%" if study is None else f"2.25.{self.example}.{study}"
        with self.sessions.begin() as session:
            for statement in (
                "UPDATE worklist_item w SET due_at = w.due_at - :by FROM study s"
                " WHERE s.id = w.study_id AND s.study_instance_uid LIKE :uid",
                "UPDATE study SET first_received_at = first_received_at - :by,"
                " last_received_at = last_received_at - :by WHERE study_instance_uid LIKE :uid",
            ):
                session.execute(text(statement), {"by": by, "uid": uid})

    # What the rows say

    def _rows(self) -> dict[str, list[dict[str, Any]]]:
        with self.sessions() as session:
            return {
                table: [
                    dict(row)
                    for row in session.execute(text(f"SELECT * FROM {table} ORDER BY 1")).mappings()  # noqa: S608
                ]
                for table in ("analysis", "worklist_item", "study", "instance")
            }

    def _versions(self) -> list[int]:
        with self.sessions() as session:
            return list(session.scalars(select(ModelVersion.id)))

    def _live(self, session: Session) -> int | None:
        return session.scalars(
            select(ModelVersion.id).where(ModelVersion.state == ModelState.LIVE)
        ).one_or_none()

    def _is_current(self, held: Claim) -> bool:
        with self.sessions() as session:
            row = session.get_one(Analysis, held.analysis_id)
            return row.state is AnalysisState.RUNNING and row.attempt == held.attempt

    def _study(self, session: Session, study: int) -> Study | None:
        uid = f"2.25.{self.example}.{study}"
        return session.scalars(select(Study).filter_by(study_instance_uid=uid)).one_or_none()

    @staticmethod
    def _of(things: Any, pick: int) -> Any:  # noqa: ANN401 - any sequence
        return things[pick % len(things)]


def nothing_is_deleted(_: Connection) -> None:
    """Stand where retention's objects come back: there are none here."""
    raise AssertionError("an object counts as deleted")


def make_received(study_uid: str, number: int, word: str = "") -> Received:
    """Make an object of a study as if it lay in the archive; ``word`` is its order's priority."""
    return Received(
        attributes=_attributes(study_uid, number, word),
        pipeline=PIPELINE,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        path=f"objects/{study_uid}.{number}.dcm",
        size_bytes=1,
        sha256=hashlib.sha256(f"{study_uid}.{number}".encode()).digest(),
        source_ae_title="CR1",
        source_address="127.0.0.1",
    )


def _attributes(study_uid: str, number: int, word: str) -> Attributes:
    return Attributes(
        sop_class_uid=RADIOGRAPH,
        sop_instance_uid=f"{study_uid}.1.{number}",
        study_instance_uid=study_uid,
        series_instance_uid=f"{study_uid}.1",
        issuer_of_patient_id="",
        patient_id=f"P{study_uid}",
        patient_name="",
        patient_birth_date="",
        patient_sex="",
        patient_age="",
        accession_number="",
        study_description="",
        study_date="",
        study_time="",
        acquired_at=None,
        requested_procedure_priority=word,
        study_priority_id="",
        modality="DX",
        body_part_examined="CHEST",
        series_description="",
        instance_number=number,
        view_position="PA",
    )
