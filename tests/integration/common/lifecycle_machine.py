"""Random lives of studies on a real Postgres, with invariants held against the rows.

Each rule enters by the door that the services use. ``together`` lets several of them happen at
once, each in a session and a thread of its own.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import func, select, text

from common.lifecycle import claim, renew
from common.reading import claim_study, mark_read, set_order_priority, switch_ai_ranking, undo_read
from common.states import AnalysisState, OrderPriority
from common.tables import Analysis
from dicom_listener.clashes import Known
from tests.integration.common.definition import define_place, read_studies
from tests.integration.common.lifecycle_doors import LEASE_S, PIPELINE, STUDIES, Doors

FINAL = {AnalysisState.DONE, AnalysisState.FAILED, AnalysisState.NOT_ELIGIBLE}
ACTS = (
    *("receive", "take", "finish", "receive", "take", "finish", "fail", "refuse", "expire"),
    *("follow", "settle", "activate", "reprocess", "retry"),
)
studies, picks = st.integers(0, STUDIES - 1), st.integers(0, 11)
probabilities = st.sampled_from([0.02, 0.3, 0.5, 0.7, 0.95, 1.0])
words = st.sampled_from(["", "", "STAT", "HIGH", "LOW"])


class Lives(Doors, RuleBasedStateMachine):
    """Studies, workers, readers and upkeep in any order."""

    def __init__(self) -> None:
        RuleBasedStateMachine.__init__(self)
        self.open_doors()

    def teardown(self) -> None:
        """Let go of the connections."""
        self.registrar.close()

    @initialize(live=st.booleans())
    def begin(self, live: bool) -> None:
        """Start with a model, or without one yet."""
        if live:
            self.activate_new()

    # What the listener does

    @rule(study=studies, word=words, routed=st.sampled_from([True, True, True, False]))
    def receive(self, study: int, word: str, routed: bool) -> None:
        """Receive a new object of a study: its first, or a late one."""
        self._receive(study, word, routed)

    @rule(pick=picks)
    def receive_again(self, pick: int) -> None:
        """Receive an object that is there already: nothing may change by it."""
        if self.received:
            before = self._rows()
            assert self._register(self._of(self.received, pick)) is Known.REPEAT
            assert self._rows() == before

    # What workers do

    @rule(oldest=st.booleans())
    def take(self, oldest: bool) -> None:
        """Claim a row."""
        self._take(oldest=oldest)

    @rule()
    def take_two_from_open_sessions(self) -> None:
        """Claim from two sessions of which neither has committed: never the same row."""
        versions = self._versions()
        arguments: Any = {"worker": "open", "model_version_ids": versions, "lease_s": LEASE_S}
        with self.sessions() as one, self.sessions() as other:
            first, second = claim(one, **arguments), claim(other, **arguments)
            one.commit()
            other.commit()
        for claimed in (first, second):
            if claimed is not None:
                self._hold(claimed)

    @rule(picked=st.lists(picks, min_size=1, max_size=3))
    def renew(self, picked: list[int]) -> None:
        """Renew leases, stale ones among them."""
        claims = [self._of(self.held, pick) for pick in picked if self.held]
        ours = {one.analysis_id for one in claims if self._is_current(one)}
        with self.sessions.begin() as session:
            assert renew(session, claims, LEASE_S) == ours

    @rule(pick=picks, probability=probabilities, abstained=st.booleans())
    def finish(self, pick: int, probability: float, abstained: bool) -> None:
        """Store a result, under whatever attempt."""
        self._guarded(pick, lambda held: self._finish(held, probability, abstained))

    @rule(pick=picks)
    def refuse(self, pick: int) -> None:
        """Say that the pipeline does not apply."""
        self._guarded(pick, self._refuse)

    @rule(pick=picks, for_good=st.booleans())
    def fail(self, pick: int, for_good: bool) -> None:
        """Count an image's own error."""
        self._guarded(pick, lambda held: self._fail(held, for_good))

    @rule(pick=picks)
    def lapse(self, pick: int) -> None:
        """Let a lease run out."""
        if self.held:
            self._lapse([self._of(self.held, pick)])

    # What upkeep and time do

    @rule()
    def expire(self) -> None:
        """Return what was lost to the queue."""
        self.upkeep.expire_leases()

    @rule()
    def follow(self) -> None:
        """Point queued rows at what is live."""
        self.upkeep.follow_live_models()

    @rule(study=studies)
    def settle(self, study: int) -> None:
        """Let a study fall quiet, and upkeep see it."""
        self._age(study, timedelta(seconds=self.settings.settle_after_s + 1))
        self.upkeep.settle_studies()

    @rule(study=studies)
    def wait_past_the_cap(self, study: int) -> None:
        """Let a study wait longer than any may, and upkeep see it."""
        self._age(study, timedelta(hours=self.settings.hard_cap_h + 1))
        self.upkeep.promote_studies()

    @rule()
    def everything_ends(self) -> None:
        """Let all who hold work die: what is left is taken up, and every study comes to rest."""
        with self.sessions() as session:
            none_live = self._live(session) is None
        if none_live:
            self.activate_new()
        self._lapse(self.held)
        self.upkeep.expire_leases()
        self.upkeep.follow_live_models()
        for _ in range(500):
            claimed = self._take(oldest=False, live_only=True)
            if claimed is None:
                break
            assert self._finish(claimed, 0.3, abstained=False)
        self._age(None, timedelta(seconds=self.settings.settle_after_s + 1))
        self.upkeep.settle_studies()
        with self.sessions() as session:
            assert set(session.scalars(select(Analysis.state))) <= FINAL
            for rows in read_studies(session):
                assert rows.item["final"], dict(rows.item)

    # What people do

    @rule()
    def activate_new(self) -> None:
        """Register a version and make it live."""
        self._activate(None)

    @rule(pick=picks)
    def activate_old(self, pick: int) -> None:
        """Go back to a version, or to the one that is live."""
        self._activate(pick)

    @rule(study=studies)
    def reprocess(self, study: int) -> None:
        """Ask for a new run."""
        self._reprocess(study)

    @rule()
    def retry(self) -> None:
        """Queue again all that failed."""
        self._retry()

    @rule(study=studies, seen_all=st.booleans())
    def read(self, study: int, seen_all: bool) -> None:
        """Read a study, perhaps before its last image came."""
        with self.sessions.begin() as session:
            found = self._study(session, study)
            if found is not None:
                seen = sum(
                    one.attributes.study_instance_uid == found.study_instance_uid
                    for one in self.received
                )
                mark_read(session, found, "R", self.settings, instances_seen=seen - (not seen_all))

    @rule(study=studies, what=st.sampled_from(["undo", "claim", "stat", "routine", "as sent"]))
    def reader_does(self, study: int, what: str) -> None:
        """Undo, reserve or raise a study."""
        with self.sessions.begin() as session:
            found = self._study(session, study)
            if found is None:
                return
            if what == "undo":
                undo_read(session, found, "R", self.settings)
            elif what == "claim":
                claim_study(session, found, "R", self.settings)
            else:
                to = None if what == "as sent" else OrderPriority(what)
                set_order_priority(session, found, "R", to, self.settings)

    @rule(on=st.booleans())
    def switch(self, on: bool) -> None:
        """Turn AI ranking on or off, and let upkeep follow."""
        with self.sessions.begin() as session:
            switch_ai_ranking(session, "R", on=on)
        self.upkeep.rerank_studies()

    # All at once

    @rule(
        acts=st.lists(
            st.tuples(
                st.sampled_from(ACTS),
                picks,
            ),
            min_size=2,
            max_size=4,
        )
    )
    def together(self, acts: list[tuple[str, int]]) -> None:
        """Let several things happen in the same instant, each in its own session."""
        waiting = Barrier(len(acts))

        def act(what: str, pick: int) -> None:
            waiting.wait(10)
            held = self._of(self.held, pick) if self.held else None
            study = pick % STUDIES
            if what in ("finish", "fail", "refuse") and held is None:
                return
            does: dict[str, Callable[[], object]] = {
                "receive": lambda: self._receive(study, "", routed=True),
                "take": lambda: self._take(oldest=bool(pick % 2)),
                "finish": lambda: self._finish(held, 0.9, abstained=False),  # pyright: ignore
                "fail": lambda: self._fail(held, for_good=False),  # pyright: ignore
                "refuse": lambda: self._refuse(held),  # pyright: ignore
                "expire": self.upkeep.expire_leases,
                "follow": self.upkeep.follow_live_models,
                "settle": self.upkeep.settle_studies,
                "activate": lambda: self._activate(pick if pick % 2 else None),
                "reprocess": lambda: self._reprocess(study),
                "retry": self._retry,
            }
            does[what]()

        with ThreadPoolExecutor(len(acts)) as threads:
            for future in [threads.submit(act, *one) for one in acts]:
                future.result()

    # What must always hold

    @invariant()
    def one_result_for_each_image_version_and_run(self) -> None:
        """No unit of work stands twice, and what is stored is what was accepted, once."""
        with self.sessions() as session:
            twice = session.execute(
                text(
                    "SELECT instance_id, model_version_id, run FROM analysis WHERE purpose = 'live'"
                    " GROUP BY 1, 2, 3 HAVING count(*) > 1"
                )
            ).all()
            assert not twice
            rows = session.scalars(select(Analysis)).all()
            late = session.execute(select(func.sum(Analysis.late_results))).scalar_one() or 0
        assert late == self.discarded
        routed = [row for row in rows if row.pipeline == PIPELINE]
        assert {row.id for row in routed if row.state in FINAL} == set(self.accepted)
        for row in routed:
            if row.id in self.accepted:
                assert (row.state, row.probability) == self.accepted[row.id]
            else:
                assert row.probability is None

    @invariant()
    def nothing_is_stuck(self) -> None:
        """Each row is final, or can be claimed once upkeep has run, or its lease will end."""
        with self.sessions() as session:
            live = self._live(session)
            for row in session.scalars(select(Analysis)).all():
                assert (row.state is AnalysisState.RUNNING) == (row.lease_until is not None)
                assert row.state is not AnalysisState.RUNNING or row.attempt > 0
                if row.state is AnalysisState.QUEUED:
                    # Upkeep follows where an activation came between; without a model it waits.
                    assert row.pipeline == PIPELINE
                    assert live is not None or row.model_version_id is None

    @invariant()
    def every_place_is_as_defined(self) -> None:
        """Outcome, band and due time are what the rows say they should be."""
        with self.sessions() as session:
            found = read_studies(session)
        for rows in found:
            item, place = rows.item, define_place(rows, self.settings)
            assert item["outcome"] == place.outcome, (dict(item), rows.analyses)
            assert item["images"] == place.images
            assert item["leading_analysis_id"] == place.leading_analysis_id
            assert item["probability"] == place.probability
            assert item["order_priority"] == place.order_priority
            assert (item["listed"], item["new_image_since_read"]) == (place.listed, place.badge)
            assert item["final"] == place.final, (dict(item), rows.analyses)
            if place.listed:
                assert item["band"] == place.band, dict(item)
                assert abs(item["due_at"] - place.due_at) < timedelta(milliseconds=1), dict(item)
