"""What peers asked us to commit to, and what we answered. The listener writes both tables.

Whoever deletes objects takes ``bar_commitments`` in the transaction in which it looks for rows of
``commitment_item`` with ``succeeded``, and ends it only when the file is gone: a commitment that is
being made holds ``hold_commitments`` from its last look at the file to its commit.
"""

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    String,
    UniqueConstraint,
    func,
    select,
    text,
)
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from common.tables import Base

_LOCK = 7265019


class CommitmentRequest(Base):
    """One transaction of a peer: an N-ACTION that we took, until its outcome is told."""

    __tablename__ = "commitment_request"
    __table_args__ = (
        UniqueConstraint("calling_ae_title", "transaction_uid"),
        CheckConstraint("state IN ('pending', 'delivered', 'abandoned')", name="known_state"),
        Index(
            "ix_commitment_request_next_try_at",
            "next_try_at",
            postgresql_where=text("state = 'pending'"),
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    transaction_uid: Mapped[str] = mapped_column(String(64))
    calling_ae_title: Mapped[str] = mapped_column(String(16))
    source_address: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16), server_default="pending")
    tries: Mapped[int] = mapped_column(Integer, server_default="0")  # fences a lost lease's holder
    failures: Mapped[int] = mapped_column(Integer, server_default="0")  # since it was asked for
    last_error: Mapped[str] = mapped_column(String, server_default="")
    requested_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.clock_timestamp()
    )
    next_try_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.clock_timestamp()
    )
    lease_until: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    ended_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))

    items: Mapped[list["CommitmentItem"]] = relationship(
        back_populates="request", order_by="CommitmentItem.position"
    )


class CommitmentItem(Base):
    """One object of a request. ``succeeded``: we told, or are about to tell, that it is safe."""

    __tablename__ = "commitment_item"
    __table_args__ = (
        CheckConstraint(
            "(succeeded IS NULL) = (checked_at IS NULL) "
            "AND (succeeded IS FALSE) = (failure_reason IS NOT NULL)",
            name="failure_says_why",
        ),
        Index(
            "ix_commitment_item_sop_instance_uid",
            "sop_instance_uid",
            postgresql_where=text("succeeded"),
        ),
    )

    request_id: Mapped[int] = mapped_column(
        ForeignKey("commitment_request.id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    sop_instance_uid: Mapped[str] = mapped_column(String(64))
    succeeded: Mapped[bool | None]
    failure_reason: Mapped[int | None] = mapped_column(Integer)  # (0008,1197)
    checked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))

    request: Mapped[CommitmentRequest] = relationship(back_populates="items")


def hold_commitments(session: Session) -> None:
    """Let nobody delete until this transaction ends; many may hold at a time."""
    session.execute(select(func.pg_advisory_xact_lock_shared(_LOCK)))


def bar_commitments(session: Session) -> None:
    """Let no commitment be made until this transaction ends: for those who delete objects."""
    session.execute(select(func.pg_advisory_xact_lock(_LOCK)))
