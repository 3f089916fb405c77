"""Index what people search by, what went wrong, and what upkeep looks for.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

BEGINNINGS = {
    "ix_study_accession_number_upper": ("study", "upper(accession_number)"),
    "ix_patient_patient_id_upper": ("patient", "upper(patient_id)"),
    "ix_patient_patient_name_upper": ("patient", "upper(replace(patient_name, '^', ' '))"),
}


def upgrade() -> None:
    for name, (table, words) in BEGINNINGS.items():
        op.execute(f"CREATE INDEX {name} ON {table} ({words} text_pattern_ops)")
    for state in ("failed", "not_eligible"):
        op.create_index(
            f"ix_analysis_{state}",
            "analysis",
            ["finished_at", "id"],
            postgresql_where=sa.text(f"state = '{state}'"),
        )
    op.create_index(
        "ix_worklist_item_ranked",
        "worklist_item",
        ["ai_ranked", "study_id"],
        postgresql_where=sa.text("listed"),
    )


def downgrade() -> None:
    op.drop_index("ix_worklist_item_ranked", "worklist_item")
    for state in ("failed", "not_eligible"):
        op.drop_index(f"ix_analysis_{state}", "analysis")
    for name, (table, _) in BEGINNINGS.items():
        op.drop_index(name, table)
