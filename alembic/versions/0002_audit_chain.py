"""Seal audit events in chains, one a process.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "audit_chain",
        sa.Column("chain_id", sa.Uuid(), nullable=False),
        sa.Column("key_id", sa.String(length=16), nullable=False),
        sa.Column("service", sa.String(length=32), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("process", sa.Integer(), nullable=False),
        sa.Column(
            "began_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("sent_sequence", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("head_sequence", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("chain_id", name=op.f("pk_audit_chain")),
    )
    op.add_column("audit_event", sa.Column("chain_id", sa.Uuid(), nullable=True))
    op.add_column("audit_event", sa.Column("sequence", sa.BigInteger(), nullable=True))
    op.add_column("audit_event", sa.Column("hmac", sa.LargeBinary(length=32), nullable=True))
    op.create_foreign_key(
        op.f("fk_audit_event_chain_id_audit_chain"),
        "audit_event",
        "audit_chain",
        ["chain_id"],
        ["chain_id"],
    )
    op.create_unique_constraint(
        op.f("uq_audit_event_chain_id_sequence"), "audit_event", ["chain_id", "sequence"]
    )
    op.create_check_constraint(
        op.f("ck_audit_event_wholly_sealed"),
        "audit_event",
        "num_nulls(chain_id, sequence, hmac) IN (0, 3)",
    )


def downgrade() -> None:
    op.drop_constraint(op.f("ck_audit_event_wholly_sealed"), "audit_event", type_="check")
    op.drop_constraint(op.f("uq_audit_event_chain_id_sequence"), "audit_event", type_="unique")
    op.drop_constraint(
        op.f("fk_audit_event_chain_id_audit_chain"), "audit_event", type_="foreignkey"
    )
    for column in ("hmac", "sequence", "chain_id"):
        op.drop_column("audit_event", column)
    op.drop_table("audit_chain")
