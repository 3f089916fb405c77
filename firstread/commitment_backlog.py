"""Outcomes of storage commitment that their peers have not been told, for the doctor."""

from collections.abc import Iterator

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from common.commitment_tables import CommitmentRequest


def undelivered(session: Session) -> Iterator[str]:
    """Say for each peer how many of its outcomes wait or were given up, and why the last."""
    newest = func.max(CommitmentRequest.id)
    rows = session.execute(
        select(CommitmentRequest.calling_ae_title, CommitmentRequest.state, func.count(), newest)
        .where(
            (CommitmentRequest.state == "abandoned")
            | ((CommitmentRequest.state == "pending") & (CommitmentRequest.failures > 0))
        )
        .group_by(CommitmentRequest.calling_ae_title, CommitmentRequest.state)
        .order_by(CommitmentRequest.calling_ae_title, CommitmentRequest.state)
    ).all()
    for ae_title, state, count, request_id in rows:
        why = session.scalar(
            select(CommitmentRequest.last_error).where(CommitmentRequest.id == request_id)
        )
        what = "given up" if state == "abandoned" else "not delivered yet"
        yield f"{ae_title}: {count} {what} (last: {why}); check call_back of its rule"
