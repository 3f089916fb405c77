"""What a listener takes for known: the database's clock for seconds, studies by the thousand."""

from datetime import UTC, datetime, timedelta

from dicom_listener.recent import Recent

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


def test_the_database_s_clock_is_carried_on_and_not_for_long() -> None:
    passed = [0.0]
    recent = Recent(since_boot_s=lambda: passed[0])
    assert recent.now() is None
    recent.saw_clock(NOON)
    passed[0] = 12.5
    assert recent.now() == NOON + timedelta(seconds=12.5)
    passed[0] = 30.0
    assert recent.now() is None


def test_a_study_is_new_once_and_again_when_thousands_came_since() -> None:
    recent = Recent()
    assert recent.is_first_of("1.2")
    assert not recent.is_first_of("1.2")
    for number in range(5000):
        recent.is_first_of(f"1.3.{number}")
    assert recent.is_first_of("1.2")
