"""The demo's verdict: it passes what is as expected and complains of everything else."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from common.states import AnalysisState, OrderPriority, Outcome, PrioritySource
from common.tables import Analysis
from firstread.demo_ledger import Peak, Seen, SeenObject, SeenStudy, find_peak
from firstread.demo_verdict import judge, judge_own
from firstread.scanner.cases import Case
from firstread.scanner.expectations import Expectations, ExpectedObject, ExpectedStudy
from firstread.scanner.send_log import Acknowledgement

NOW = datetime(2026, 11, 22, tzinfo=UTC)
BOX = (100, 100, 40, 40)


def expected_study(number: int, *, lesion: bool, case: Case = Case.FRONTAL) -> ExpectedStudy:
    """Expect one frontal study, or a refused object."""
    refused = case is Case.NO_STUDY_UID
    return ExpectedStudy(
        study_instance_uid=f"1.{number}",
        accession_number=f"A{number}",
        patient_id=f"P{number}",
        order_priority=OrderPriority.ROUTINE,
        priority_source=PrioritySource.DEFAULT,
        prior=False,
        registered=not refused,
        outcome=None if refused else Outcome.FLAGGED if lesion else Outcome.NOT_FLAGGED,
        band_if_flagged=1,
        band_if_not_flagged=2,
        objects=[
            ExpectedObject(
                path=Path(f"{number}.dcm"),
                case=case,
                calling_ae_title="SIM",
                sop_class_uid="1.2",
                sop_instance_uid=f"2.{number}",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                status=0xC000 if refused else 0,
                registered=not refused,
                state=None if refused else AnalysisState.DONE,
                outcome=None if refused else Outcome.FLAGGED if lesion else Outcome.NOT_FLAGGED,
                lesion_boxes=[BOX] if lesion else [],
            )
        ],
    )


def seen_object(number: int, outcome: Outcome) -> SeenObject:
    """See its instance done, its heatmap high in the middle of the box."""
    return SeenObject(
        sop_instance_uid=f"2.{number}",
        study_instance_uid=f"1.{number}",
        state=AnalysisState.DONE,
        outcome=outcome,
        probability=0.5,
        reasons=(),
        error=None,
        received_at=NOW,
        finished_at=NOW,
        peak=Peak(120, 120, 0.9, 8),
    )


def seen_study(number: int, outcome: Outcome, band: int) -> SeenStudy:
    """See its place on the list."""
    return SeenStudy(
        f"1.{number}", outcome, band, True, False, True,
        OrderPriority.ROUTINE, PrioritySource.DEFAULT,
    )  # fmt: skip


def acknowledgement(number: int, status: int = 0) -> Acknowledgement:
    """Hear what the listener answered."""
    return Acknowledgement(
        at=NOW, sop_instance_uid=f"2.{number}", sop_class_uid="1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1", status=status, attempts=1, duration_s=0.1,
        calling_ae_title="SIM", destination="X@localhost:1", path=Path(f"{number}.dcm"),
    )  # fmt: skip


EXPECTED = Expectations(
    run_id="run",
    seed=1,
    allowed_miss_rate=0,
    allowed_false_flag_rate=0,
    studies=[
        expected_study(1, lesion=True),
        expected_study(2, lesion=False),
        expected_study(3, lesion=False, case=Case.NO_STUDY_UID),
    ],
)
ANSWERS = [acknowledgement(1), acknowledgement(2), acknowledgement(3, 0xC000)]
SEEN = Seen(
    (seen_object(1, Outcome.FLAGGED), seen_object(2, Outcome.NOT_FLAGGED)),
    {
        "1.1": seen_study(1, Outcome.FLAGGED, 1),
        "1.2": seen_study(2, Outcome.NOT_FLAGGED, 2),
    },
)


def change(number: int, **values: object) -> Callable[[Seen], Seen]:
    """See one object otherwise."""

    def changed(seen: Seen) -> Seen:
        objects = tuple(
            replace(one, **values) if one.sop_instance_uid == f"2.{number}" else one  # pyright: ignore[reportArgumentType]
            for one in seen.objects
        )
        return replace(seen, objects=objects)

    return changed


def lose(number: int) -> Callable[[Seen], Seen]:
    """See one object not at all."""

    def lost(seen: Seen) -> Seen:
        objects = tuple(one for one in seen.objects if one.sop_instance_uid != f"2.{number}")
        return replace(seen, objects=objects)

    return lost


def test_all_as_expected_passes_every_check() -> None:
    assert [check.complaints for check in judge(EXPECTED, ANSWERS, SEEN)] == [()] * 6


@pytest.mark.parametrize(
    ("differently", "complaining"),
    [
        (lose(2), "what was acknowledged is kept"),
        (change(2, state=AnalysisState.FAILED), "each analysis ends in its state"),
        (change(2, state=AnalysisState.RUNNING), "each analysis ends in its state"),
        (change(1, outcome=Outcome.NOT_FLAGGED), "lesions are flagged, the rest is not"),
        (change(2, outcome=Outcome.FLAGGED), "lesions are flagged, the rest is not"),
        (change(1, peak=None), "heatmaps peak in a lesion"),
        (
            lambda seen: replace(seen, studies={**seen.studies, "1.2": SEEN.studies["1.1"]}),
            "each study has its outcome and rank",
        ),
        (
            lambda seen: replace(seen, studies={"1.1": seen.studies["1.1"]}),
            "each study has its outcome and rank",
        ),
    ],
)
def test_a_difference_is_complained_of(
    differently: Callable[[Seen], Seen], complaining: str | None
) -> None:
    failed = {
        check.subject for check in judge(EXPECTED, ANSWERS, differently(SEEN)) if not check.passed
    }
    assert complaining in failed if complaining else failed == set()


def test_another_status_than_expected_is_complained_of() -> None:
    answers = [acknowledgement(1), acknowledgement(2), acknowledgement(3, 0)]
    failed = {check.subject for check in judge(EXPECTED, answers, SEEN) if not check.passed}
    assert failed == {"each object answered by its status", "what was acknowledged is kept"}


def test_heatmaps_that_peak_beside_the_lesions_more_often_than_stated_fail() -> None:
    numbers = range(1, 11)
    expected = EXPECTED.model_copy(
        update={"studies": [expected_study(number, lesion=True) for number in numbers]}
    )
    for beside, passes in ((2, True), (3, False)):
        objects = tuple(
            replace(
                seen_object(number, Outcome.FLAGGED),
                peak=Peak(500, 500, 0.9, 8) if number <= beside else Peak(120, 120, 0.9, 8),
            )
            for number in numbers
        )
        check = judge(expected, ANSWERS, Seen(objects, {}))[-1]
        assert check.passed is passes, check.complaints


def test_the_peak_is_the_centre_of_the_highest_cell_in_image_pixels() -> None:
    grid = np.zeros((4, 8), np.float16)
    grid[1, 6] = 0.75
    analysis = Analysis(
        heatmap=grid.tobytes(), heatmap_rows=4, heatmap_columns=8,
        heatmap_affine=[800.0, 0.0, 0.0, 0.0, 400.0, 0.0],
    )  # fmt: skip
    assert find_peak(analysis) == Peak(x=650.0, y=150.0, value=0.75, margin_px=50.0)


def test_of_own_files_it_says_what_was_not_taken_or_not_analysed_and_fails_only_on_loss() -> None:
    seen = change(2, state=AnalysisState.NOT_ELIGIBLE, reasons=("under 18 years",))(SEEN)
    checks = judge_own(ANSWERS, seen)
    assert all(check.passed for check in checks)
    assert [note for check in checks for note in check.notes] == [
        "3.dcm: not taken: status 0xc000",
        "2.dcm: not eligible: under 18 years",
    ]
    assert not all(check.passed for check in judge_own(ANSWERS, lose(1)(seen)))
    waiting = change(1, state=AnalysisState.QUEUED)(seen)
    assert not all(check.passed for check in judge_own(ANSWERS, waiting))
