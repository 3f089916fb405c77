"""A site's prevalence: proposed from the ledger's own scores, approved by an audited activation."""

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session, sessionmaker

from common.errors import BundleError
from common.settings import Settings
from common.states import AnalysisState, ModelState, Outcome
from common.tables import Analysis, AuditEvent, ModelVersion
from firstread.model_versions import activate
from firstread.prevalence_proposal import corrected_version, scores_of_ledger
from tests.ledger import add_study
from tests.small_bundle import write_small_bundle
from worker.registration import register


def test_scores_of_the_ledger_are_those_of_this_bundle_done_lately(
    sessions: sessionmaker[Session], settings: Settings, tmp_path: Path
) -> None:
    bundle = write_small_bundle(tmp_path / "small")
    with pytest.raises(BundleError, match="no results of small"):
        scores_of_ledger(settings, bundle, days=30)
    with sessions.begin() as session:
        (version,) = register(session, [bundle], actor="test")
        for _ in range(3):
            add_study(session, settings, model_version_id=version.id, images=2)
        ids = session.scalars(select(Analysis.id).order_by(Analysis.id)).all()
        for number, (analysis, days) in enumerate(zip(ids, (1, 1, 1, 1, 40), strict=False)):
            session.execute(
                update(Analysis)
                .where(Analysis.id == analysis)
                .values(
                    state=AnalysisState.DONE,
                    score=float(number),
                    probability=0.5,
                    outcome=Outcome.FLAGGED,
                    finished_at=Analysis.received_at - timedelta(days=days),
                )
            )

    found = scores_of_ledger(settings, bundle, days=30)

    assert sorted(found.scores) == [0, 1, 2, 3]  # one was long ago, one is not done
    assert len(set(found.groups)) == 2


def test_activating_the_corrected_version_is_the_approval_and_is_audited(
    sessions: sessionmaker[Session], settings: Settings, tmp_path: Path
) -> None:
    bundle = write_small_bundle(tmp_path / "small")
    with sessions.begin() as session:
        register(session, [bundle], actor="test")
    corrected = corrected_version(bundle, tmp_path / "site", 0.2, "audit of 500 reports", None)

    activate(settings, str(tmp_path / "site"))

    with sessions() as session:
        live = session.scalars(
            select(ModelVersion).where(ModelVersion.state == ModelState.LIVE)
        ).one()
        assert live.bundle_sha256 == corrected.sha256
        assert live.threshold == pytest.approx(corrected.threshold)
        assert corrected.threshold < bundle.threshold
        actions = session.scalars(select(AuditEvent.action)).all()
    assert any("activated" in action for action in actions)
