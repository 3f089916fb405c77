"""When an image was taken, from DICOM's dates and times as devices really write them."""

import re
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from common.pixels.header import Header, text

_DATE = re.compile(r"(\d{4})([.-]?)(\d{2})\2(\d{2})")
_TIME = re.compile(r"(\d{2})(?::?(\d{2})(?::?(\d{2})(?:\.\d*)?)?)?")
_OFFSET = re.compile(r"([+-])(\d{2})(\d{2})")
_DATETIME = re.compile(r"(\d{8})(\d{0,6}(?:\.\d*)?)([+-]\d{4})?")


def acquired_at(header: Header, zone: ZoneInfo) -> datetime | None:
    """Find the instant of the study: its own date, else the acquisition's; None if both are odd.

    A missing or odd time counts as midnight: the day is what tells a prior from today's study.

    Args:
        zone: The site's, for objects that state no Timezone Offset From UTC (0008,0201).
    """
    stated = parse_offset(text(header, "TimezoneOffsetFromUTC")) or zone
    for prefix in ("Study", "Acquisition", "Series"):
        date, time = text(header, f"{prefix}Date"), text(header, f"{prefix}Time")
        if instant := parse_instant(date, time, stated):
            return instant
    if match := _DATETIME.fullmatch(text(header, "AcquisitionDateTime")):
        date, time, offset = match.groups()
        return parse_instant(date, time, parse_offset(offset or "") or stated)
    return None


def parse_instant(date: str, time: str, zone: timezone | ZoneInfo) -> datetime | None:
    """Read a DA and a TM value, also in ACR-NEMA's old spellings; None if the date is none."""
    day = _DATE.fullmatch(date)
    if day is None:
        return None
    clock = _TIME.fullmatch(time)
    hour, minute, second = (int(part or 0) for part in clock.groups()) if clock else (0, 0, 0)
    if hour > 23 or minute > 59 or second > 60:
        hour = minute = second = 0
    try:
        local = datetime(
            int(day[1]), int(day[3]), int(day[4]), hour, minute, min(second, 59), tzinfo=zone
        )
        return local.astimezone(UTC)
    except (ValueError, OverflowError):  # the 31st of February; the year 1 east of Greenwich
        return None


def parse_offset(value: str) -> timezone | None:
    """Read an offset like +0100; None if there is none, or none that a place can have."""
    match = _OFFSET.fullmatch(value)
    if match is None:
        return None
    offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
    if offset > timedelta(hours=14) or int(match[3]) > 59:
        return None
    return timezone(-offset if match[1] == "-" else offset)
