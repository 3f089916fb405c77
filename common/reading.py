"""What people do with a study: claim, release, read, undo, raise; each step audited with it."""

from datetime import timedelta
from typing import Any

from sqlalchemy import func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from common.audit.chain import note
from common.lifecycle import requeue_order
from common.settings import Settings
from common.tables import (
    AuditEvent,
    OrderPriority,
    Reading,
    ReadingState,
    Site,
    Study,
    WorklistItem,
)
from common.worklist import SITE_ID, derive_item

NOW = func.clock_timestamp()


def audit(
    session: Session,
    actor: str,
    action: str,
    study_instance_uid: str | None = None,
    **detail: Any,  # noqa: ANN401 - JSON
) -> None:
    """Write down who did or saw what, when the session commits. No patient in ``detail``."""
    note(
        session,
        AuditEvent(
            actor=actor, action=action, study_instance_uid=study_instance_uid, detail=detail
        ),
    )


def claim_study(session: Session, study: Study, actor: str, settings: Settings) -> bool:
    """Reserve a study for one reader. False if somebody else holds it or it has been read."""
    reading = _locked(session, study.id)
    taken = session.execute(
        update(Reading)
        .where(
            Reading.study_id == study.id,
            or_(
                Reading.state == ReadingState.UNREAD,
                (Reading.state == ReadingState.CLAIMED)
                & or_(Reading.claimed_by == actor, Reading.claimed_until < NOW),
                (Reading.state == ReadingState.READ) & _reopened(study.id),
            ),
        )
        .values(
            state=ReadingState.CLAIMED,
            claimed_by=actor,
            claimed_until=NOW + timedelta(minutes=settings.claim_min),
        )
        .returning(Reading.study_id)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if taken is None:
        return False
    session.refresh(reading)
    audit(session, actor, "study_claimed", study.study_instance_uid)
    derive_item(session, study.id, settings)
    return True


def release_study(session: Session, study: Study, actor: str, settings: Settings) -> bool:
    """Give a claimed study back. False if this reader does not hold it."""
    reading = _locked(session, study.id)
    if reading.state is not ReadingState.CLAIMED or reading.claimed_by != actor:
        return False
    reading.state, reading.claimed_by, reading.claimed_until = ReadingState.UNREAD, None, None
    audit(session, actor, "study_released", study.study_instance_uid)
    derive_item(session, study.id, settings)
    return True


def mark_read(
    session: Session,
    study: Study,
    actor: str,
    settings: Settings,
    *,
    instances_seen: int,
    reported_elsewhere: bool = False,
) -> None:
    """Take a study off the list.

    Args:
        instances_seen: How many objects the reader was shown. One that arrives later, or was on
            its way while the page stood open, puts the study back with a badge.
    """
    reading = _locked(session, study.id)
    reading.state = ReadingState.READ
    reading.claimed_by, reading.claimed_until = None, None
    reading.read_by, reading.read_at = actor, NOW  # pyright: ignore[reportAttributeAccessIssue]
    reading.instances_read = instances_seen
    reading.reported_elsewhere = reported_elsewhere
    action = "study_closed_elsewhere" if reported_elsewhere else "study_read"
    audit(session, actor, action, study.study_instance_uid, instances_seen=instances_seen)
    session.flush()
    derive_item(session, study.id, settings)


def undo_read(session: Session, study: Study, actor: str, settings: Settings) -> None:
    """Put a study that was marked read back on the list."""
    reading = _locked(session, study.id)
    reading.state, reading.read_by, reading.read_at = ReadingState.UNREAD, None, None
    reading.instances_read, reading.reported_elsewhere = None, False
    audit(session, actor, "study_unread", study.study_instance_uid)
    session.flush()
    derive_item(session, study.id, settings)


def set_order_priority(
    session: Session,
    study: Study,
    actor: str,
    priority: OrderPriority | None,
    settings: Settings,
) -> WorklistItem:
    """Let a person decide how urgent an order is; None goes back to what was sent."""
    reading = _locked(session, study.id)
    before = reading.order_priority
    reading.order_priority = priority
    audit(
        session,
        actor,
        "order_priority_changed",
        study.study_instance_uid,
        before=before,
        after=priority,
    )
    session.flush()
    item = derive_item(session, study.id, settings)
    requeue_order(session, item)
    return item


def switch_ai_ranking(session: Session, actor: str, *, on: bool) -> None:
    """Rank by AI and orders, or by orders alone. ``rerank`` moves the studies."""
    session.execute(update(Site).where(Site.id == SITE_ID).values(ai_ranking=on))
    audit(session, actor, "ai_ranking_switched", on=on)


def rerank(session: Session, settings: Settings, *, limit: int = 200) -> int:
    """Derive items anew that were ranked under the other position of the switch.

    Returns:
        How many were; call again, in a new transaction, until it is 0.
    """
    other = select(~Site.ai_ranking).where(Site.id == SITE_ID).scalar_subquery()
    stale = session.execute(  # equality, for the index: upkeep asks this every few seconds
        select(WorklistItem.study_id)
        .where(WorklistItem.listed, WorklistItem.ai_ranked == other)
        .order_by(WorklistItem.study_id)
        .limit(limit)
    ).scalars()
    study_ids = list(stale)
    for study_id in study_ids:
        derive_item(session, study_id, settings)
    return len(study_ids)


def _locked(session: Session, study_id: int) -> Reading:
    session.execute(
        insert(Reading)
        .values(study_id=study_id, state=ReadingState.UNREAD)
        .on_conflict_do_nothing()
    )
    return session.execute(
        select(Reading)
        .where(Reading.study_id == study_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).scalar_one()


def _reopened(study_id: int) -> Any:  # noqa: ANN401 - an SQL expression
    return (
        select(WorklistItem.new_image_since_read)
        .where(WorklistItem.study_id == study_id)
        .scalar_subquery()
    )
