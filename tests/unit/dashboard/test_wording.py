"""How things are put to a reader."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from common.states import Outcome
from dashboard.wording import (
    MEANINGS,
    OUTCOMES,
    clock,
    highest_of,
    in_words,
    number,
    person_name,
    plain,
    settled,
    span,
)
from dashboard.worklist_row import age_text

NOW = datetime(2026, 11, 22, 23, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("DOE^JANE^M^^", "DOE, JANE M"),
        ("DOE", "DOE"),
        ("^JANE", "JANE"),
        ("", ""),
        ("Yamada^Tarou=山田^太郎", "Yamada, Tarou"),
        ("=山田^太郎", "山田, 太郎"),
        ("A\u202eB\x1b^\x00C", "AB, C"),
    ],
)
def test_a_person_is_named_family_first(sent: str, shown: str) -> None:
    assert person_name(sent) == shown


def test_no_output_is_called_normal() -> None:
    assert set(OUTCOMES) == set(MEANINGS) == set(Outcome)
    assert "normal" not in " ".join([*OUTCOMES.values(), *MEANINGS.values()]).lower()


@pytest.mark.parametrize(
    ("probability", "shown", "counted"),
    [
        (0.0, "< 0.01", "fewer than 1 were"),
        (0.01, "0.01", "about 1 was"),
        (0.87, "0.87", "about 87 were"),
        (0.994, "> 0.99", "about 99 were"),
        (1.0, "> 0.99", "more than 99 were"),
    ],
)
def test_a_probability_never_rounds_to_certainty(
    probability: float, shown: str, counted: str
) -> None:
    assert number(probability) == shown
    assert counted in in_words(probability)


def test_instants_are_told_on_the_sites_clocks_with_the_day_where_it_is_another() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    assert clock(NOW, NOW, berlin) == "00:30"
    assert clock(NOW - timedelta(hours=2), NOW, berlin) == "22 Nov 22:30"
    assert clock(None, NOW, berlin) == "never"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3660, "1 h 01 min"),
        (48 * 3600, "2 d 0 h"),
    ],
)
def test_durations_are_short(seconds: int, shown: str) -> None:
    assert span(timedelta(seconds=seconds)) == shown


@pytest.mark.parametrize(
    ("patient_age", "birth_date", "shown"),
    [
        ("045Y", "", "45 y"),
        ("006M", "19800101", "6 mo"),
        ("", "19801123", "45 y"),
        ("", "19801122", "46 y"),
        ("old", "unknown", ""),
        ("", "20991231", ""),
    ],
)
def test_an_age_is_the_one_sent_else_from_the_birth_date(
    patient_age: str, birth_date: str, shown: str
) -> None:
    assert age_text(patient_age, birth_date, NOW) == shown


def test_text_of_senders_loses_what_cannot_be_seen_and_nothing_else() -> None:
    assert plain("a\tb\u2067<i>ü</i>\u200d") == "a b<i>ü</i>\u200d"


def test_an_image_that_was_refused_is_counted_and_never_taken_for_analysed() -> None:
    assert highest_of(1, 2).startswith("One of 2 images analysed")
    assert highest_of(2, 3).startswith("Highest of 2 images; 2 of 3 images analysed")
    assert highest_of(1, 1) == "One image analysed; calibrated for one image."
    assert highest_of(2, 2) == "Highest of 2 images; calibrated for one image."
    refused = settled(final=True, analysed=1, pictures=2)
    assert "all images" not in refused
    assert "1 image was not analysed" in refused
    assert settled(final=True, analysed=2, pictures=2) == "Final: all images are analysed."
    assert settled(final=False, analysed=1, pictures=2) == "Provisional: more may come."
