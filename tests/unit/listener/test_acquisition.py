"""When an image was taken, from what devices write."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from pydicom.dataset import Dataset

from dicom_listener.acquisition import acquired_at

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"StudyDate": "20260701", "StudyTime": "101530.5"}, (2026, 7, 1, 8, 15, 30)),
        ({"StudyDate": "20260101", "StudyTime": "1015"}, (2026, 1, 1, 9, 15)),
        ({"StudyDate": "2026.01.01", "StudyTime": "10:15:30"}, (2026, 1, 1, 9, 15, 30)),
        ({"StudyDate": "20260101", "StudyTime": "noon"}, (2025, 12, 31, 23, 0)),
        ({"StudyDate": "20260101"}, (2025, 12, 31, 23, 0)),
        ({"StudyDate": "20260101", "StudyTime": "235960"}, (2026, 1, 1, 22, 59, 59)),
        (
            {"StudyDate": "20260101", "StudyTime": "10", "TimezoneOffsetFromUTC": "-0530"},
            (2026, 1, 1, 15, 30),
        ),
        (
            {"StudyDate": "20260101", "StudyTime": "10", "TimezoneOffsetFromUTC": "+9900"},
            (2026, 1, 1, 9, 0),
        ),
        ({"AcquisitionDate": "20260101", "AcquisitionTime": "10"}, (2026, 1, 1, 9, 0)),
        ({"AcquisitionDateTime": "20260101101530.1+0000"}, (2026, 1, 1, 10, 15, 30)),
        ({"StudyDate": "20260231", "SeriesDate": "20260228"}, (2026, 2, 27, 23, 0)),
        ({"StudyDate": "20260231"}, None),
        ({"StudyDate": "yesterday"}, None),
        ({"StudyDate": "20260101-20260201"}, None),
        ({"StudyDate": "00010101"}, None),
        ({}, None),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_dates_and_times_become_instants_or_nothing(
    tags: dict[str, str], expected: tuple[int, ...] | None
) -> None:
    header = Dataset()
    for keyword, value in tags.items():
        setattr(header, keyword, value)
    assert acquired_at(header, BERLIN) == (
        None if expected is None else datetime(*expected, tzinfo=UTC)  # pyright: ignore
    )
