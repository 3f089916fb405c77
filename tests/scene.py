"""A worklist with every state that a page can show, on phantoms: for tests of the dashboard."""

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session, sessionmaker

from common.archive import Archive
from common.pixels.rendition import write_rendition
from common.settings import Settings
from common.states import AnalysisState, Lane, Outcome, SetAsideKind
from common.tables import Analysis, Instance, Patient, Series, SetAside, Study
from common.worklist import database_now, derive_item
from model.phantoms import Phantom, generate_phantom
from tests.ledger import add_model

THRESHOLD = 0.42
GRID = 15
numbers = count(1)
BLANK = Phantom(np.zeros((1, 1), np.float32))
UNSUPPORTED = ("no localisation supports the flag",)


@dataclass(frozen=True)
class Shot:
    """One image of a study to be: what its analysis came to."""

    state: AnalysisState = AnalysisState.DONE
    probability: float | None = None
    outcome: Outcome | None = None
    reasons: tuple[str, ...] = ()
    error: str | None = None
    lesion: bool = False
    pictured: bool = True
    view_position: str = "PA"


def flagged(probability: float, reasons: tuple[str, ...] = ()) -> Shot:
    """Make a flagged image, its lesion where the heatmap is bright."""
    return Shot(probability=probability, outcome=Outcome.FLAGGED, lesion=True, reasons=reasons)


def not_flagged(probability: float) -> Shot:
    """Make an image below the operating point."""
    return Shot(probability=probability, outcome=Outcome.NOT_FLAGGED)


QUEUED = Shot(state=AnalysisState.QUEUED, pictured=False)
FAILED = Shot(
    state=AnalysisState.FAILED,
    error="UnreadablePixelsError: compressed pixels are cut off: no end marker",
    pictured=False,
)
LATERAL = Shot(
    state=AnalysisState.NOT_ELIGIBLE, reasons=("view position is LL",), view_position="LL"
)
ABSTAINED = Shot(probability=0.41, outcome=Outcome.ABSTAINED, reasons=("too near the threshold",))


def add_scene_study(
    session: Session,
    settings: Settings,
    *shots: Shot,
    name: str = "PHANTOM^ALFA",
    minutes: float = 30,
    accession: str = "",
    priority: str = "",
    description: str = "Chest PA",
    patient: Patient | None = None,
    acquired_before: timedelta = timedelta(minutes=9),
    settled: bool = True,
    model_version_id: int | None = None,
    ae_title: str = "CR_ROOM_2",
    size_px: tuple[int, int] = (512, 448),
) -> Study:
    """Add a study with one object a shot, analysed as each shot says."""
    number = next(numbers)
    received = database_now(session) - timedelta(minutes=minutes)
    study = Study(
        patient=patient
        or Patient(
            issuer_of_patient_id="",
            patient_id=f"SIM-{4000 + number}",
            patient_id_stated=True,
            patient_name=name,
            patient_birth_date=f"{1938 + number * 3 % 60}0412",
            patient_sex="FM"[number % 2],
        ),
        study_instance_uid=f"2.25.7000{number}",
        accession_number=accession or f"SIM{26000 + number}",
        study_description=description,
        requested_procedure_priority=priority,
        source_ae_title=ae_title,
        first_received_at=received,
        last_received_at=received,
        acquired_at=received - acquired_before,
    )
    study.series = [Series(series_instance_uid=f"2.25.7000{number}.1", modality="DX")]
    session.add(study)
    session.flush()
    for shot in shots:
        _add_shot(session, settings, study, shot, number, model_version_id, size_px)
    derive_item(session, study.id, settings, settled=settled)
    return study


def build_scene(
    sessions: sessionmaker[Session], settings: Settings, size_px: tuple[int, int] = (512, 448)
) -> dict[str, str]:
    """Build the scene; returns Study Instance UIDs by the names that tests call them."""
    with sessions.begin() as session:
        model = add_model(session, "phantom", THRESHOLD)

        def add(*shots: Shot, **more: Any) -> Study:  # noqa: ANN401 - as add_scene_study takes it
            same: dict[str, Any] = {"model_version_id": model, "size_px": size_px}
            return add_scene_study(session, settings, *shots, **same, **more)

        studies = {
            "stat": add(QUEUED, name="PHANTOM^BRAVO", minutes=1, priority="STAT", settled=False),
            "flagged": add(flagged(0.91), not_flagged(0.18), name="PHANTOM^CHARLIE", minutes=26),
            "unsupported": add(flagged(0.57, UNSUPPORTED), name="PHANTOM^DELTA", minutes=64),
            "urgent": add(not_flagged(0.07), name="PHANTOM^ECHO", minutes=41, priority="HIGH"),
            "not_flagged": add(not_flagged(0.12), name="PHANTOM^FOXTROT", minutes=118),
            "abstained": add(ABSTAINED, name="PHANTOM^GOLF", minutes=305),
            "incomplete": add(
                FAILED, not_flagged(0.22), name="PHANTOM^HOTEL", minutes=190, settled=True
            ),
            "not_eligible": add(LATERAL, name="PHANTOM^INDIA", minutes=77, description="Chest lat"),
            "hostile": add(
                not_flagged(0.31),
                name="<svg onload>^**bold**",
                description="<img src=x onerror=document.title=1> :material/home: [x](y)",
                accession="<i>A</i>&amp;:red[1]",
                minutes=12,
            ),
        }
        for index, name in enumerate(
            ["JULIETT", "KILO", "LIMA", "MIKE", "NOVEMBER", "OSCAR", "PAPA"]
        ):
            shot = not_flagged(0.02 + 0.035 * index)
            add(shot, name=f"PHANTOM^{name}", minutes=140 + 97 * index)
        add(
            not_flagged(0.14),
            patient=studies["flagged"].patient,
            minutes=20,
            acquired_before=timedelta(days=412),
        )
        session.add(
            SetAside(
                sop_instance_uid="2.25.9.1",
                study_instance_uid="2.25.9",
                sha256=bytes(32),
                kind=SetAsideKind.PIXELS_DIFFER,
                path="set_aside/0.dcm",
                size_bytes=812_331,
                source_ae_title="CR_ROOM_2",
                source_address="127.0.0.1",
                received_at=database_now(session) - timedelta(minutes=51),
            )
        )
        return {name: study.study_instance_uid for name, study in studies.items()}


def _add_shot(
    session: Session,
    settings: Settings,
    study: Study,
    shot: Shot,
    seed: int,
    model_version_id: int | None,
    size_px: tuple[int, int],
) -> None:
    number = next(numbers)
    digest = hashlib.sha256(f"scene {number}".encode()).digest()
    rows, columns = size_px
    phantom = _phantom(seed % 12, shot.lesion, size_px) if shot.pictured else BLANK
    rendition = None
    if shot.pictured:
        archive = Archive(settings.archive_path)
        rendition = archive.rendition_name(digest)
        archive.path(rendition).parent.mkdir(parents=True, exist_ok=True)
        write_rendition(phantom.image, archive.path(rendition))
    done = shot.state is AnalysisState.DONE
    received = study.first_received_at
    heatmap = heatmap_of(phantom, shot.probability or 0).astype("<f2").tobytes()
    finished = received + timedelta(seconds=0.9)
    session.add(
        Analysis(
            study_id=study.id,
            instance=Instance(
                series=study.series[0],
                sop_instance_uid=f"2.25.7000{seed}.1.{number}",
                sop_class_uid="1.2.840.10008.5.1.4.1.1.1.1",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                instance_number=number,
                view_position=shot.view_position,
                path=f"objects/{number}.dcm",
                size_bytes=1,
                sha256=digest,
                source_ae_title=study.source_ae_title,
                source_address="127.0.0.1",
                received_at=received,
            ),
            pipeline="phantom",
            model_version_id=model_version_id,
            inputs_sha256=digest,
            state=shot.state,
            lane=Lane.CURRENT,
            due_at=received,
            error=shot.error,
            failures=3 if shot.error else 0,
            score=0.0 if done else None,
            probability=shot.probability,
            outcome=shot.outcome,
            reasons=list(shot.reasons),
            insight_probability=shot.probability if done else None,
            heatmap=heatmap if done else None,
            heatmap_rows=GRID if done else None,
            heatmap_columns=GRID if done else None,
            heatmap_affine=[float(columns), 0.0, 0.0, 0.0, float(rows), 0.0] if done else None,
            rows=rows if shot.pictured else None,
            columns=columns if shot.pictured else None,
            rendition=rendition,
            received_at=received,
            queued_at=received + timedelta(seconds=0.02),
            claimed_at=received + timedelta(seconds=0.05) if done else None,
            decoded_at=received + timedelta(seconds=0.3) if done else None,
            predicted_at=received + timedelta(seconds=0.8) if done else None,
            finished_at=finished if shot.state is not AnalysisState.QUEUED else None,
        )
    )
    session.flush()


def heatmap_of(phantom: Phantom, probability: float) -> NDArray[np.float32]:
    """Draw a heatmap, float32 (GRID, GRID), bright over the phantom's lesions."""
    rows, columns = phantom.image.shape
    grid = np.full((GRID, GRID), 0.04, np.float32)
    for x, y, width, height in phantom.lesion_boxes:
        centre = ((x + width / 2) / columns * GRID - 0.5, (y + height / 2) / rows * GRID - 0.5)
        across, down = np.meshgrid(np.arange(GRID) - centre[0], np.arange(GRID) - centre[1])
        grid += probability * np.exp(-(across**2 + down**2) / 2.2).astype(np.float32)
    return np.clip(grid, 0, 1)


@lru_cache(maxsize=64)
def _phantom(seed: int, lesion: bool, size_px: tuple[int, int]) -> Phantom:
    return generate_phantom(seed, lesion=lesion, size_px=size_px)
