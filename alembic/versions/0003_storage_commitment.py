"""Keep what peers asked us to commit to, and what we answered.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    now = sa.text("clock_timestamp()")
    op.create_table(
        "commitment_request",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("calling_ae_title", sa.String(length=16), nullable=False),
        sa.Column("source_address", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), server_default="pending", nullable=False),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_error", sa.String(), server_default="", nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.Column("next_try_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('pending', 'delivered', 'abandoned')",
            name=op.f("ck_commitment_request_known_state"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitment_request")),
        sa.UniqueConstraint(
            "calling_ae_title",
            "transaction_uid",
            name=op.f("uq_commitment_request_calling_ae_title_transaction_uid"),
        ),
    )
    op.create_index(
        "ix_commitment_request_next_try_at",
        "commitment_request",
        ["next_try_at"],
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_table(
        "commitment_item",
        sa.Column("request_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("succeeded", sa.Boolean(), nullable=True),
        sa.Column("failure_reason", sa.Integer(), nullable=True),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(succeeded IS NULL) = (checked_at IS NULL) "
            "AND (succeeded IS FALSE) = (failure_reason IS NOT NULL)",
            name=op.f("ck_commitment_item_failure_says_why"),
        ),
        sa.ForeignKeyConstraint(
            ["request_id"],
            ["commitment_request.id"],
            name=op.f("fk_commitment_item_request_id_commitment_request"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("request_id", "position", name=op.f("pk_commitment_item")),
    )
    op.create_index(
        "ix_commitment_item_sop_instance_uid",
        "commitment_item",
        ["sop_instance_uid"],
        postgresql_where=sa.text("succeeded"),
    )


def downgrade() -> None:
    op.drop_table("commitment_item")
    op.drop_table("commitment_request")
