"""A study's place as docs/architecture.md defines it, worked out from the rows alone.

Written from the text and not from the code that it is held against.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.orm import Session

from common.settings import Settings

_PRIORITY_WORDS = {
    "STAT": "stat",
    "HIGH": "urgent",
    "ROUTINE": "routine",
    "MEDIUM": "routine",
    "LOW": "routine",
}


class Place(NamedTuple):
    """What a worklist item must say; band and due time count only where it is listed."""

    outcome: str
    images: int
    leading_analysis_id: int | None
    probability: float | None
    order_priority: str
    listed: bool
    badge: bool
    final: bool
    band: int
    due_at: datetime


@dataclass(frozen=True)
class StudyRows:
    """One study's rows, as plain mappings."""

    study: Any
    item: Any
    analyses: Sequence[Any]
    reading: Any | None
    instances: int
    ai_ranking: bool
    now: datetime


def read_studies(session: Session) -> list[StudyRows]:
    """Read every study with all that its place depends on, while nothing changes it."""

    def rows(statement: str) -> Sequence[Any]:
        return session.execute(text(statement)).mappings().all()

    studies = rows("SELECT * FROM study ORDER BY id")
    items = {row["study_id"]: row for row in rows("SELECT * FROM worklist_item")}
    readings = {row["study_id"]: row for row in rows("SELECT * FROM reading")}
    analyses: dict[int, list[Any]] = defaultdict(list)
    for row in rows(
        "SELECT a.*, v.threshold, v.state AS version_state FROM analysis a"
        " LEFT JOIN model_version v ON v.id = a.model_version_id ORDER BY a.id"
    ):
        analyses[row["study_id"]].append(row)
    counts = {
        row["study_id"]: row["n"]
        for row in rows(
            "SELECT s.study_id, count(*) AS n FROM instance i JOIN series s ON s.id = i.series_id"
            " GROUP BY s.study_id"
        )
    }
    ai_ranking = session.execute(text("SELECT ai_ranking FROM site")).scalar_one()
    now = session.execute(text("SELECT clock_timestamp()")).scalar_one()
    return [
        StudyRows(
            study,
            items.get(study["id"]),
            analyses[study["id"]],
            readings.get(study["id"]),
            counts.get(study["id"], 0),
            ai_ranking,
            now,
        )
        for study in studies
    ]


def define_place(rows: StudyRows, settings: Settings) -> Place:
    """Apply the definitions one after the other."""
    counting = _counting(rows.analyses)
    done = [row for row in counting if row["state"] == "done"]
    working = [row for row in counting if row["state"] in ("queued", "running")]
    outcomes = {row["outcome"] for row in done}
    if "flagged" in outcomes:
        outcome = "flagged"
    elif working:
        outcome = "pending"
    elif any(row["state"] == "failed" for row in counting):
        outcome = "incomplete"
    elif "abstained" in outcomes:
        outcome = "abstained"
    else:
        outcome = "not_flagged" if done else "not_eligible"
    # The leading image is the one with the highest probability; of a flagged study, a
    # flagged one.
    candidates = [row for row in done if row["outcome"] == outcome] or done
    leading = min(candidates, key=lambda row: (-row["probability"], row["id"]), default=None)

    priority = _priority(rows, settings)
    minutes = {
        "stat": settings.stat_allowance_min,
        "urgent": settings.urgent_allowance_min,
        "routine": settings.routine_allowance_min,
    }[priority]
    is_flagged = outcome == "flagged" and rows.ai_ranking
    if is_flagged and leading is not None:
        p, t = leading["probability"], leading["threshold"]
        u = (p - t) / (1 - t)
        lo, hi = settings.ai_allowance_lo_min, settings.ai_allowance_hi_min
        minutes = min(minutes, hi ** (1 - u) * lo**u)
    age = rows.now - rows.study["first_received_at"]
    if priority == "stat":
        band = 0
    elif priority == "urgent" or is_flagged or age > timedelta(hours=settings.hard_cap_h):
        band = 1
    else:
        band = 2

    is_read = rows.reading is not None and rows.reading["state"] == "read"
    seen = rows.reading["instances_read"] if is_read and rows.reading is not None else 0
    badge = is_read and rows.instances > (seen or 0)
    acquired = rows.study["acquired_at"]
    is_prior = acquired is not None and rows.study["first_received_at"] - acquired > timedelta(
        days=settings.prior_after_days
    )
    any_in_work = any(row["state"] in ("queued", "running") for row in rows.analyses)
    return Place(
        outcome=outcome,
        images=len(done),
        leading_analysis_id=leading["id"] if leading is not None else None,
        probability=leading["probability"] if leading is not None else None,
        order_priority=priority,
        listed=not is_prior and (not is_read or badge),
        badge=badge,
        final=rows.item["settled"] and not any_in_work,
        band=band,
        due_at=rows.study["first_received_at"] + timedelta(minutes=minutes),
    )


def _counting(analyses: Sequence[Any]) -> list[Any]:
    """Choose what counts: of each unit the last run with an answer, and the runs after it."""
    units: dict[Any, list[Any]] = defaultdict(list)
    for row in analyses:
        units[row["instance_id"], row["series_id"], row["pipeline"]].append(row)
    counting: list[Any] = []
    for runs in units.values():
        answered = [row["run"] for row in runs if row["state"] in ("done", "not_eligible")]
        last = max(answered, default=-1)
        counting += [row for row in runs if row["run"] >= last]
    return counting


def _priority(rows: StudyRows, settings: Settings) -> str:
    by_person = rows.reading["order_priority"] if rows.reading is not None else None
    if by_person is not None:
        return by_person
    for column in ("requested_procedure_priority", "study_priority_id"):
        word = _PRIORITY_WORDS.get(rows.study[column])
        if word is not None:
            return word
    rule = settings.ae_priorities.get(rows.study["source_ae_title"])
    return str(rule) if rule is not None else "routine"
