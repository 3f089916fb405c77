"""Index what people search by, what went wrong, and what upkeep looks for.

Revision ID: 0005
Revises: 0004
"""

from alembic import op

revision = "0005"
down_revision = "0004"

INDEXES = {
    "ix_study_accession_number_upper": "study (upper(accession_number) text_pattern_ops)",
    "ix_patient_patient_id_upper": "patient (upper(patient_id) text_pattern_ops)",
    "ix_patient_patient_name_upper": (
        "patient (upper(replace(patient_name, '^', ' ')) text_pattern_ops)"
    ),
    "ix_analysis_failed": "analysis (finished_at, id) WHERE state = 'failed'",
    "ix_analysis_not_eligible": "analysis (finished_at, id) WHERE state = 'not_eligible'",
    "ix_worklist_item_ranked": "worklist_item (ai_ranked, study_id) WHERE listed",
}


def upgrade() -> None:
    with op.get_context().autocommit_block():  # concurrently: services write meanwhile
        for name, rows in INDEXES.items():
            # What an interrupted run left of an index has its name and is none.
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {rows}")


def downgrade() -> None:
    for name in reversed(INDEXES):
        op.execute(f"DROP INDEX {name}")
