"""Registration, activation, and a worker that follows them without a restart."""

import shutil
from pathlib import Path

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session, sessionmaker

from common.errors import BundleError
from common.settings import Settings
from common.states import AnalysisState, ModelState
from common.tables import Analysis, AuditEvent, ModelVersion
from model.bundles import Bundle, write_description
from model.gate import GATE, GateSpec
from tests.integration.worker.conftest import Ledger
from tests.worker_parts import EchoPipeline, make_bundle
from worker.models import Models
from worker.registration import activate_version, register, register_bundles

Sessions = sessionmaker[Session]


def load(bundle: Bundle) -> EchoPipeline:
    return EchoPipeline()


def states(sessions: Sessions) -> dict[str, ModelState]:
    with sessions() as session:
        rows = session.execute(select(ModelVersion.version, ModelVersion.state))
        return {row.version: row.state for row in rows}


def test_the_newest_complete_bundle_becomes_live_where_nothing_was(
    sessions: Sessions, tmp_path: Path
) -> None:
    make_bundle(tmp_path / "old", version="1.9.0")
    make_bundle(tmp_path / "new", version="1.10.0")
    make_bundle(tmp_path / "incomplete", version="2.0.0", complete=False)
    with sessions.begin() as session:
        made = register_bundles(session, [tmp_path])
        assert len(made) == 3
    assert states(sessions) == {
        "1.9.0": ModelState.CANDIDATE,
        "1.10.0": ModelState.LIVE,
        "2.0.0": ModelState.CANDIDATE,
    }
    with sessions.begin() as session:
        assert register_bundles(session, [tmp_path]) == []
        actions = session.scalars(select(AuditEvent.action).order_by(AuditEvent.id)).all()
    assert sorted(actions) == ["model_activated", *["model_registered"] * 3]


def test_a_new_bundle_waits_for_a_person_where_a_version_is_live(
    sessions: Sessions, tmp_path: Path
) -> None:
    with sessions.begin() as session:
        register(session, [make_bundle(tmp_path / "one")], actor="test")
    with sessions.begin() as session:
        register(session, [make_bundle(tmp_path / "two", version="2.0.0")], actor="test")
    assert states(sessions) == {"1.0.0": ModelState.LIVE, "2.0.0": ModelState.CANDIDATE}


def test_activation_retires_the_old_version_and_repoints_what_is_queued(
    ledger: Ledger, tmp_path: Path
) -> None:
    queued, running = ledger.queue("score 1", "score 1")
    with ledger.sessions.begin() as session:
        session.execute(
            update(Analysis)
            .where(Analysis.id == running)
            .values(state=AnalysisState.RUNNING, lease_until=Analysis.queued_at)
        )
        (second,) = register(
            session, [make_bundle(tmp_path / "two", version="2.0.0")], actor="test"
        )
        assert activate_version(session, second, actor="somebody") == 1
    assert states(ledger.sessions) == {"1.0.0": ModelState.RETIRED, "2.0.0": ModelState.LIVE}
    assert ledger.row(queued).model_version_id == second.id
    assert ledger.row(running).model_version_id == ledger.model_version_id
    with ledger.sessions() as session:
        event = session.scalars(select(AuditEvent).order_by(AuditEvent.id.desc())).first()
        assert event is not None
        assert (event.actor, event.action) == ("somebody", "model_activated")
        assert event.detail["repointed"] == 1


def test_a_single_bundles_folder_can_be_registered(sessions: Sessions, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "one")
    with sessions.begin() as session:
        (version,) = register_bundles(session, [bundle.folder])
        assert version.bundle_sha256 == bundle.sha256


def test_an_incomplete_bundle_is_refused_and_told_what_it_lacks(
    sessions: Sessions, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path / "incomplete", complete=False)
    with sessions.begin() as session:
        (version,) = register(session, [bundle], actor="test")
        with pytest.raises(BundleError, match=r"operating points.*evaluation on 100 cases"):
            activate_version(session, version, actor="somebody")
    assert states(sessions) == {"1.0.0": ModelState.CANDIDATE}


def test_a_bundle_that_moved_is_found_again(sessions: Sessions, tmp_path: Path) -> None:
    with sessions.begin() as session:
        register(session, [make_bundle(tmp_path / "here")], actor="test")
    shutil.move(tmp_path / "here", tmp_path / "there")
    with sessions.begin() as session:
        assert register_bundles(session, [tmp_path]) == []
        assert session.scalar(select(ModelVersion.folder)) == str(tmp_path / "there")


def test_a_worker_follows_an_activation_and_keeps_what_is_in_use(
    ledger: Ledger, tmp_path: Path
) -> None:
    models = Models(ledger.sessions, load)
    models.refresh()
    assert models.claimable() == [ledger.model_version_id]
    with ledger.sessions.begin() as session:
        (second,) = register(
            session, [make_bundle(tmp_path / "two", version="2.0.0")], actor="test"
        )
        activate_version(session, second, actor="somebody")
    with models.using(ledger.model_version_id):
        models.refresh()
        assert models.claimable() == [second.id]
        with models.using(ledger.model_version_id) as old:
            assert old.bundle.version == "1.0.0"
    models.refresh()
    with pytest.raises(BundleError, match="not loaded"), models.using(ledger.model_version_id):
        pass


def test_a_bundle_that_was_changed_on_disk_is_not_loaded(ledger: Ledger) -> None:
    (ledger.bundle.folder / "card.md").write_text("# Another story\n")
    models = Models(ledger.sessions, load)
    models.refresh()
    assert models.claimable() == []


def test_a_bundle_swapped_for_another_is_not_loaded(ledger: Ledger) -> None:
    shutil.rmtree(ledger.bundle.folder)
    make_bundle(ledger.bundle.folder, version="6.6.6")
    models = Models(ledger.sessions, load)
    models.refresh()
    assert models.claimable() == []


def test_a_bundle_whose_gate_cannot_be_read_is_neither_activated_nor_loaded(
    ledger: Ledger, tmp_path: Path
) -> None:
    fields = make_bundle(tmp_path / "gated", version="3.0.0").model_dump(
        exclude={"files", "folder", "sha256"}
    )
    (tmp_path / "gated" / GATE).write_bytes(b"no gate")
    spec = GateSpec(least_chest=0, least_adult=0, most_unlike=2, chosen_on="nothing")
    gated = write_description(tmp_path / "gated", {**fields, "gate": spec}, (GATE,))
    with ledger.sessions.begin() as session:
        (version,) = register(session, [gated], actor="test")
        with pytest.raises(BundleError, match="gate that can be read"):
            activate_version(session, version, actor="somebody")
        # As a release before this check may have left it.
        session.execute(update(ModelVersion).values(state=ModelState.RETIRED))
        version.state, version.threshold = ModelState.LIVE, 0.5

    models = Models(ledger.sessions, load)
    models.refresh()

    assert models.claimable() == []


def test_one_bad_bundle_does_not_keep_the_other_pipelines_from_working(
    ledger: Ledger, tmp_path: Path
) -> None:
    with ledger.sessions.begin() as session:
        session.add(
            ModelVersion(
                pipeline="phantom",
                name="lost",
                version="1.0.0",
                bundle_sha256="0" * 64,
                folder=str(tmp_path / "nowhere"),
                threshold=0.5,
                state=ModelState.LIVE,
            )
        )
    models = Models(ledger.sessions, load)
    models.refresh()
    assert models.claimable() == [ledger.model_version_id]


def test_a_loaded_model_is_warm(ledger: Ledger, settings: Settings) -> None:
    made: list[EchoPipeline] = []

    def remember(bundle: Bundle) -> EchoPipeline:
        made.append(EchoPipeline())
        return made[-1]

    Models(ledger.sessions, remember).refresh()
    assert made[0].batches == [[0.0]]
