"""The simulated scanner: valid DICOM, every variety, and a word on each object's fate."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from common.errors import UnreadablePixelsError
from common.pixels.header import is_phantom, read_header
from common.pixels.reading import read_pixels
from common.settings import Settings
from common.states import AnalysisState, OrderPriority, Outcome, PrioritySource
from firstread.scanner.cases import FATES, REPEATS, UNREADABLE, Case
from firstread.scanner.data_sets import make_uid
from firstread.scanner.encodings import ENCODINGS, Encoding, quantise, set_pixels
from firstread.scanner.expectations import (
    Expectations,
    ExpectedObject,
    peak_lands,
    read_expectations,
    tally_flags,
)
from firstread.scanner.outgoing import read_outgoing
from firstread.scanner.plans import (
    AE_PRIORITIES,
    StudyPlan,
    plan_demo,
    plan_stream,
)
from firstread.scanner.scanner import Scanner, WrittenStudy
from model.eligibility import EligibilityRules, Policy, judge

STARTED_AT = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
RULES = EligibilityRules(phantoms_only=True)


def small(plan: StudyPlan) -> StudyPlan:
    """Give the plan with pictures that are quickly drawn."""
    return StudyPlan(**{**vars(plan), "size_px": (192, 160)})


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[WrittenStudy]:
    """Write the demo's studies, small."""
    scanner = Scanner(3, "run", STARTED_AT, tmp_path_factory.mktemp("scanner"))
    return [scanner.write_study(small(plan)) for plan in plan_demo(3, frontals=6)]


def objects_of(written: list[WrittenStudy], *cases: Case) -> Iterator[ExpectedObject]:
    return (one for study in written for one in study.expected.objects if one.case in cases)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
def test_pixels_are_read_back_as_they_were_stored(encoding: Encoding, tmp_path: Path) -> None:
    image = np.random.default_rng(1).random((65, 51))
    image[0, :2] = 0, 1
    cells = quantise(image, encoding)
    dataset = Dataset()
    dataset.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.1")
    dataset.SOPInstanceUID = make_uid("test")
    dataset.file_meta = FileMetaDataset()
    set_pixels(dataset, cells, encoding)
    path = tmp_path / "image.dcm"
    dataset.save_as(path, enforce_file_format=True)

    stored = dcmread(path)

    assert stored.file_meta.TransferSyntaxUID == encoding.transfer_syntax
    assert np.array_equal(stored.pixel_array, cells)
    assert np.abs(read_pixels(path) - image).max() < 1.02 / 2**encoding.bits_stored


def test_the_demo_holds_every_case_encoding_and_source_of_priority() -> None:
    plans = plan_demo(0)

    assert {case for plan in plans for case in plan.cases} == set(Case)
    frontal = [plan for plan in plans if plan.cases[0] is Case.FRONTAL]
    assert {plan.encoding for plan in frontal} == set(ENCODINGS)
    assert {plan.sop_class for plan in frontal} == {"CR", "DX"}
    assert {plan.order.source for plan in plans} == set(PrioritySource) - {PrioritySource.PERSON}
    assert {plan.order.priority for plan in plans} == set(OrderPriority)
    assert any(plan.acquired_days_ago > Settings().prior_after_days for plan in plans)


def test_encodings_hold_both_polarities_all_depths_and_seven_syntaxes() -> None:
    assert {one.photometric for one in ENCODINGS} == {"MONOCHROME1", "MONOCHROME2"}
    assert {one.bits_stored for one in ENCODINGS} == {8, 10, 12, 14, 16}
    assert len({one.transfer_syntax for one in ENCODINGS}) == 7


def test_the_expectations_name_every_object_that_goes_out(written: list[WrittenStudy]) -> None:
    for study in written:
        assert [one.path for one in study.outgoing] == [one.path for one in study.expected.objects]
        for outgoing, expected in zip(study.outgoing, study.expected.objects, strict=True):
            announced = read_outgoing(outgoing.path, outgoing.calling_ae_title)
            assert announced == outgoing
            assert outgoing.sop_instance_uid == expected.sop_instance_uid
            assert FATES[expected.case].status == expected.status


def test_tags_decide_as_the_expectations_say(written: list[WrittenStudy]) -> None:
    seen = 0
    for expected in (one for study in written for one in study.expected.objects):
        if not expected.registered or expected.case in (Case.CT_SLICE, Case.REPORT):
            continue
        judgement = judge(read_header(expected.path), RULES, Policy())
        assert judgement.eligible == (expected.state is not AnalysisState.NOT_ELIGIBLE)
        assert expected.reason in "; ".join(judgement.reasons)
        seen += 1
    assert seen > 20


def test_only_radiographs_carry_the_simulators_tag(written: list[WrittenStudy]) -> None:
    for expected in (one for study in written for one in study.expected.objects):
        other = expected.case in (Case.CT_SLICE, Case.REPORT)
        assert is_phantom(read_header(expected.path)) is not other


def test_objects_expected_to_fail_cannot_be_decoded(written: list[WrittenStudy]) -> None:
    broken = list(objects_of(written, *UNREADABLE))

    assert len(broken) == len(UNREADABLE)
    for expected in broken:
        with pytest.raises(UnreadablePixelsError):
            read_pixels(expected.path)


def test_a_frontal_image_shows_its_lesion_where_the_box_is(written: list[WrittenStudy]) -> None:
    flagged = [one for one in objects_of(written, Case.FRONTAL) if one.outcome is Outcome.FLAGGED]

    assert flagged
    for expected in flagged:
        assert expected.lesion_boxes
        assert read_pixels(expected.path).shape == (expected.rows, expected.columns)


def test_repeats_share_the_uid_of_the_object_before_them(written: list[WrittenStudy]) -> None:
    seen = set()
    for study in written:
        objects = study.expected.objects
        if len(objects) == 2 and objects[1].case in REPEATS:
            first, second = (read_pixels(one.path) for one in objects)
            assert objects[0].sop_instance_uid == objects[1].sop_instance_uid
            assert np.array_equal(first, second) is (objects[1].case is not Case.OTHER_PIXELS)
            seen.add(objects[1].case)
    assert seen == set(REPEATS)


def test_uids_and_accession_numbers_are_unique_and_allowed(written: list[WrittenStudy]) -> None:
    studies = [study.expected for study in written]
    registered = [
        one.sop_instance_uid for study in studies for one in study.objects if one.registered
    ]

    assert len(set(registered)) == len(registered)
    assert all(UID(uid).is_valid and uid.startswith("2.25.") for uid in registered)
    assert len({study.study_instance_uid for study in studies}) == len(studies)
    assert len({study.accession_number for study in studies}) == len(studies)
    assert all(len(study.accession_number) <= 16 for study in studies)


def test_the_malformed_uid_is_malformed_and_the_wrong_class_wrong(
    written: list[WrittenStudy],
) -> None:
    (malformed,) = objects_of(written, Case.MALFORMED_UID)
    (mistaken,) = objects_of(written, Case.WRONG_CLASS)
    (homeless,) = objects_of(written, Case.NO_STUDY_UID)

    assert not UID(malformed.sop_instance_uid).is_valid
    assert str(read_header(malformed.path).SOPInstanceUID) == malformed.sop_instance_uid
    assert read_header(mistaken.path).SOPClassUID != mistaken.sop_class_uid
    assert "StudyInstanceUID" not in read_header(homeless.path)


def test_priors_belong_to_patients_with_a_current_study(written: list[WrittenStudy]) -> None:
    current = {one.expected.patient_id for one in written if not one.expected.prior}
    priors = [one for one in written if one.expected.prior]

    assert len(priors) == 3
    assert {one.expected.patient_id for one in priors} <= current
    for prior in priors:
        taken = date.fromisoformat(read_header(prior.outgoing[0].path).StudyDate)
        assert (STARTED_AT.date() - taken).days > Settings().prior_after_days


def test_nobody_has_a_name_that_could_be_real(written: list[WrittenStudy]) -> None:
    for outgoing in (one for study in written for one in study.outgoing):
        assert str(read_header(outgoing.path).PatientName).startswith("PHANTOM^")


def test_the_same_seed_run_and_start_write_the_same_bytes(tmp_path: Path) -> None:
    plan = small(next(plan_stream(9, 1)))
    first, second = (
        Scanner(9, "run", STARTED_AT, tmp_path / name).write_study(plan).outgoing[0].path
        for name in ("one", "two")
    )

    assert first.read_bytes() == second.read_bytes()


def test_another_run_of_the_same_seed_has_other_uids(tmp_path: Path) -> None:
    plan = small(next(plan_stream(9, 1)))
    first, second = (
        Scanner(9, run, STARTED_AT, tmp_path / run).write_study(plan).expected
        for run in ("monday", "tuesday")
    )

    assert first.study_instance_uid != second.study_instance_uid
    assert first.objects[0].sop_instance_uid != second.objects[0].sop_instance_uid
    assert first.accession_number != second.accession_number


def test_a_stream_keeps_to_its_mix_and_does_not_depend_on_its_length() -> None:
    plans = list(plan_stream(4, 300, mix={OrderPriority.STAT: 1, OrderPriority.ROUTINE: 1}))
    stat = sum(plan.order.priority is OrderPriority.STAT for plan in plans)

    assert (
        list(plan_stream(4, 20, mix={OrderPriority.STAT: 1, OrderPriority.ROUTINE: 1}))
        == (plans[:20])
    )
    assert 110 < stat < 190
    assert all(plan.order.priority is not OrderPriority.URGENT for plan in plans)


def test_a_stream_without_any_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="weights"):
        list(plan_stream(1, 1, mix={}))


def test_the_ae_rules_are_those_that_the_settings_understand() -> None:
    written = ",".join(f"{ae}={priority}" for ae, priority in AE_PRIORITIES.items())

    settings = Settings.model_validate({"ae_priorities": written})

    assert settings.ae_priorities == AE_PRIORITIES


def test_expectations_are_read_as_they_were_written(
    written: list[WrittenStudy], tmp_path: Path
) -> None:
    expectations = Expectations(run_id="run", seed=3, studies=[one.expected for one in written])
    expectations.write(tmp_path / "expectations.json")

    assert read_expectations(tmp_path / "expectations.json") == expectations
    assert expectations.count_states()[AnalysisState.FAILED] == len(UNREADABLE)


def test_a_model_that_flags_nothing_or_everything_breaks_the_stated_rates(
    written: list[WrittenStudy],
) -> None:
    expectations = Expectations(run_id="run", seed=3, studies=[one.expected for one in written])
    uids = [one.sop_instance_uid for one in expectations.objects if one.outcome]
    truth = {one.sop_instance_uid: str(one.outcome) for one in expectations.objects if one.outcome}

    assert tally_flags(expectations, truth).within_rates
    assert not tally_flags(expectations, dict.fromkeys(uids, "not_flagged")).within_rates
    assert not tally_flags(expectations, dict.fromkeys(uids, "flagged")).within_rates
    assert not tally_flags(expectations, {}).within_rates


def test_a_peak_lands_in_a_box_or_within_its_margin() -> None:
    boxes = [(10, 20, 30, 40)]

    assert peak_lands(boxes, 12, 21)
    assert not peak_lands(boxes, 5, 30)
    assert peak_lands(boxes, 5, 30, margin_px=5)
