"""How the pages put things to a reader. An output is "flagged" or "not flagged", nothing else."""

import unicodedata
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from common.states import OrderPriority, Outcome, PrioritySource, ReadingState
from dashboard.worklist_row import WorklistRow

NOT_A_DIAGNOSIS = "Triage aid, not a diagnosis."

BANDS = {0: "STAT", 1: "Priority", 2: "Routine"}
ORDERS = {
    OrderPriority.STAT: "STAT",
    OrderPriority.URGENT: "Urgent",
    OrderPriority.ROUTINE: "Routine",
}
SOURCES = {
    PrioritySource.PERSON: "set by a person",
    PrioritySource.REQUESTED_PROCEDURE: "from the order",
    PrioritySource.STUDY_PRIORITY: "from the study's priority",
    PrioritySource.AE_TITLE: "by the sending station",
    PrioritySource.DEFAULT: "no priority was sent",
}
OUTCOMES = {
    Outcome.FLAGGED: "Flagged",
    Outcome.NOT_FLAGGED: "Not flagged",
    Outcome.ABSTAINED: "Abstained",
    Outcome.PENDING: "Pending",
    Outcome.INCOMPLETE: "Incomplete",
    Outcome.NOT_ELIGIBLE: "Not eligible",
}
MEANINGS = {
    Outcome.FLAGGED: "The model asks for an earlier look.",
    Outcome.NOT_FLAGGED: "Below the operating point. It says nothing about what the model missed.",
    Outcome.ABSTAINED: "The model looked and gives no opinion. Read without AI.",
    Outcome.PENDING: "No AI opinion yet: images are still queued or at work.",
    Outcome.INCOMPLETE: "No AI opinion: an analysis failed. Read without AI.",
    Outcome.NOT_ELIGIBLE: "No AI opinion: no image is of a kind that the model is made for.",
}
# What could draw text in another order than it was sent in.
_DIRECTION_MARKS = {"\u202a", "\u202b", "\u202c", "\u202d", "\u202e", "\u2066", "\u2067", "\u2068"}
_DIRECTION_MARKS |= {"\u2069", "\u200e", "\u200f", "\u061c"}


def plain(text: str) -> str:
    """Take control characters and direction marks out of a sender's text."""
    return "".join(
        " " if unicodedata.category(character) == "Cc" else character
        for character in text
        if character not in _DIRECTION_MARKS
    ).strip()


def person_name(patient_name: str) -> str:
    """Spell a PN: family, given and middle names of the first group that is not empty.

    Source: PS3.5 section 6.2.1.
    """
    group = next((group for group in patient_name.split("=") if group.strip("^ ")), "")
    parts = [plain(part) for part in group.split("^")]
    given = " ".join(part for part in parts[1:3] if part)
    return ", ".join(part for part in (parts[0], given) if part)


def clock(instant: datetime | None, now: datetime, zone: ZoneInfo) -> str:
    """Tell an instant on the site's clocks; the day too where it is another one."""
    if instant is None:
        return "never"
    here = instant.astimezone(zone)
    if here.date() == now.astimezone(zone).date():
        return f"{here:%H:%M}"
    return f"{here.day} {here:%b} {here:%H:%M}"


def day(instant: datetime, zone: ZoneInfo) -> str:
    """Tell the day of an instant."""
    here = instant.astimezone(zone)
    return f"{here.day} {here:%b %Y}"


def span(duration: timedelta) -> str:
    """Spell a duration: 40 s, 12 min, 3 h 05 min, 2 d 4 h."""
    seconds = max(0, int(duration.total_seconds()))
    if seconds < 60:
        return f"{seconds} s"
    minutes = seconds // 60
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def number(probability: float) -> str:
    """Write a probability so that it never rounds to certainty."""
    if probability > 0.99:
        return "> 0.99"
    if probability < 0.01:
        return "< 0.01"
    return f"{probability:.2f}"


def in_words(probability: float) -> str:
    """Say what a calibrated probability means, in natural frequencies."""
    percent = round(probability * 100)
    count = (
        "more than 99" if percent > 99 else "fewer than 1" if percent < 1 else f"about {percent}"
    )
    return (
        f"Of 100 images scored like this where the model was calibrated, {count} "
        f"{'was' if percent == 1 else 'were'} abnormal."
    )


def highest_of(images: int, pictures: int = 0) -> str:
    """Say which image a study's probability belongs to, and of how many ``pictures`` it speaks."""
    if pictures > images:
        which = "One" if images == 1 else f"Highest of {images} images; {images}"
        return f"{which} of {pictures} images analysed, see below why; calibrated for one image."
    if images == 1:
        return "One image analysed; calibrated for one image."
    return f"Highest of {images} images; calibrated for one image."


def settled(*, final: bool, analysed: int, pictures: int = 0) -> str:
    """Say whether more may come, and never that all was analysed where the model refused some."""
    if not final:
        return "Provisional: more may come."
    if pictures > analysed:
        left = pictures - analysed
        subject = "1 image was" if left == 1 else f"{left} images were"
        return f"Final: nothing is left to analyse. {subject} not analysed: no opinion on those."
    return "Final: all images are analysed."


def reading_state(row: WorklistRow, actor: str, now: datetime, zone: ZoneInfo) -> str:
    """Say what people have done with a study."""
    if row.state is ReadingState.CLAIMED:
        who = "you" if row.claimed_by == actor else plain(row.claimed_by or "")
        return f"Claimed by {who} until {clock(row.claimed_until, now, zone)}"
    if row.state is ReadingState.READ:
        if row.reported_elsewhere:
            return f"Reported elsewhere, {clock(row.read_at, now, zone)}"
        return f"Read by {plain(row.read_by or '')}, {clock(row.read_at, now, zone)}"
    if row.new_image_since_read:
        return f"New image since it was read, {clock(row.read_at, now, zone)}"
    if row.prior:
        return "Prior, not on the list"
    return "Unread"
