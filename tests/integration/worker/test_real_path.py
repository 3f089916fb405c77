"""The worker as it ships: real decoders, real network (of random weights), real DICOM."""

from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from common.archive import Archive
from common.errors import ConfigurationError
from common.pixels.rendition import read_rendition
from common.settings import Settings
from common.states import AnalysisState
from common.tables import Analysis, Instance
from model.eligibility import Policy
from model.examination import examine
from model.pipelines import load_pipeline
from tests.ledger import add_study
from tests.radiographs import make_exposure, make_radiograph, write_radiograph
from tests.small_bundle import write_small_bundle
from worker.registration import register
from worker.service import Service


@pytest.mark.parametrize("losses", [0, 2], ids=["in a batch", "alone in a process"])
def test_a_radiograph_is_scored_as_the_bundle_scores_it_offline(
    sessions: sessionmaker[Session], settings: Settings, tmp_path: Path, losses: int
) -> None:
    bundle = write_small_bundle(tmp_path / "small")
    archive = Archive(settings.archive_path)
    with sessions.begin() as session:
        (version,) = register(session, [bundle], actor="test")
        study = add_study(session, settings, model_version_id=version.id, images=2)
        rows = session.scalars(
            select(Analysis).where(Analysis.study_id == study.id).order_by(Analysis.id)
        ).all()
        for row, age in zip(rows, ("054Y", "007Y"), strict=True):
            row.losses = losses
            instance = session.get_one(Instance, row.instance_id)
            path = archive.path(instance.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_radiograph(make_radiograph(make_exposure(), 12, PatientAge=age), path)
    adult, child = [row.id for row in rows]
    service = Service(settings)
    service.start()
    assert service.analyst.serve(adult) == 2
    service.stop()
    with sessions() as session:
        done, refused = session.get_one(Analysis, adult), session.get_one(Analysis, child)
        instance = session.get_one(Instance, done.instance_id)
    assert (done.state, refused.state) == (AnalysisState.DONE, AnalysisState.NOT_ELIGIBLE)
    assert refused.reasons == ["under 18 years"]
    examined = examine(archive.path(instance.path), bundle, Policy())
    assert examined.pixels is not None
    (expected,) = load_pipeline(bundle, "cpu").predict(examined.pixels[None])
    assert done.score == pytest.approx(expected.score, abs=1e-5)
    assert done.probability == pytest.approx(bundle.interpret(expected.score).probability, abs=1e-5)
    heatmap = np.frombuffer(done.heatmap or b"", dtype=np.float16)
    assert heatmap == pytest.approx(expected.heatmap.ravel(), abs=1e-3)
    for row in (done, refused):
        assert row.rendition is not None
        assert read_rendition(archive.path(row.rendition)).shape == (150, 120)


def test_a_database_that_was_never_migrated_stops_the_worker_with_advice(
    empty_database_url: str, settings: Settings
) -> None:
    fresh = Settings.model_validate(
        {
            "home": settings.home,
            "database_url": empty_database_url,
            "broker_url": "unix:///nowhere",
            "decode_processes": 1,
        }
    )
    with pytest.raises(ConfigurationError, match="firstread migrate"):
        Service(fresh).start()
