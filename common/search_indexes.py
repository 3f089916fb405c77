"""Indexes of a large ledger: searching by text, what went wrong, what upkeep looks for.

Declared apart from their tables, which are long enough. A search starts with the beginning of an
accession number, of a patient's ID or of a name; capitals do not count.
"""

from sqlalchemy import Index, func, literal_column, text

from common.tables import Analysis, Patient, Study, WorklistItem

BEGINS = "text_pattern_ops"  # so that LIKE 'beginning%' is a range of the index, in any locale

ACCESSION_NUMBER = func.upper(Study.accession_number)
PATIENT_ID = func.upper(Patient.patient_id)
# PS3.5 table 6.2-1: ^ stands between the parts of a name, where people type a space.
PATIENT_NAME = func.upper(
    func.replace(Patient.patient_name, literal_column("'^'"), literal_column("' '"))
)

for name, words in (
    ("ix_study_accession_number_upper", ACCESSION_NUMBER),
    ("ix_patient_patient_id_upper", PATIENT_ID),
    ("ix_patient_patient_name_upper", PATIENT_NAME),
):
    Index(name, words.label("begins"), postgresql_ops={"begins": BEGINS})
for state in ("failed", "not_eligible"):
    Index(
        f"ix_analysis_{state}",
        Analysis.finished_at,
        Analysis.id,
        postgresql_where=text(f"state = '{state}'"),
    )
Index(
    "ix_worklist_item_ranked",
    WorklistItem.ai_ranked,
    WorklistItem.study_id,
    postgresql_where=text("listed"),
)
