"""Say of an object that retention deleted it, and that the site's archive vouches for it.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    for name in ("deleted_at", "file_removed_at", "archive_confirmed_at"):
        op.add_column("instance", sa.Column(name, sa.DateTime(timezone=True), nullable=True))
    op.create_check_constraint(
        op.f("ck_instance_was_deleted"),
        "instance",
        "file_removed_at IS NULL OR deleted_at IS NOT NULL",
    )
    op.create_index(
        "ix_instance_being_deleted",
        "instance",
        ["id"],
        unique=False,
        postgresql_where=sa.text("deleted_at IS NOT NULL AND file_removed_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_instance_being_deleted", table_name="instance")
    op.drop_constraint(op.f("ck_instance_was_deleted"), "instance", type_="check")
    for name in ("archive_confirmed_at", "file_removed_at", "deleted_at"):
        op.drop_column("instance", name)
