"""The SQL of registering an object: few statements, few round trips.

With the ORM, what an object cost was mostly round trips and the ORM's own work.

``LOCKED_STUDY`` stands alone on purpose. A statement that waits for a lock sees everything but the
locked row as it was before it waited: what else is asked must be asked by the next one.
"""

from dicom_listener.prepared import Statement

LOCKED_STUDY = Statement("""
SELECT id, patient_id, acquired_at, first_received_at, last_received_at, source_ae_title,
       requested_procedure_priority, study_priority_id, accession_number, study_description,
       study_date, study_time, patient_age
FROM study WHERE study_instance_uid = %(study_instance_uid)s FOR NO KEY UPDATE
""")
LOCKED_ITEM = Statement("""
SELECT FROM worklist_item
WHERE study_id = (SELECT id FROM study WHERE study_instance_uid = %(study_instance_uid)s)
FOR UPDATE
""")

# One row, whatever is there: the study's patient and reading, the series, and who has the UID.
FACTS = Statement("""
SELECT clock_timestamp() AS now, site.ai_ranking, study.id AS study_id,
       patient.issuer_of_patient_id, patient.patient_id, patient.patient_id_stated,
       patient.patient_name, patient.patient_birth_date, patient.patient_sex,
       reading.state AS reading_state, reading.instances_read, reading.order_priority,
       CASE WHEN reading.state = 'read' THEN (
           SELECT count(*) FROM instance JOIN series ON series.id = instance.series_id
           WHERE series.study_id = study.id
       ) ELSE 0 END AS instances,
       series.id AS series_id, series.study_id AS series_study_id,
       known.sha256 AS known_sha256, known.path AS known_path, known.deleted AS known_deleted,
       known.series_instance_uid AS known_series_uid, known.study_instance_uid AS known_study_uid,
       known.patient_id AS known_patient_id, known.patient_id_stated AS known_patient_id_stated
FROM site
LEFT JOIN (study JOIN patient ON patient.id = study.patient_id)
       ON study.study_instance_uid = %(study_instance_uid)s
LEFT JOIN reading ON reading.study_id = study.id
LEFT JOIN series ON series.series_instance_uid = %(series_instance_uid)s
LEFT JOIN LATERAL (
    SELECT instance.sha256, instance.path, instance.deleted_at IS NOT NULL AS deleted,
           its_series.series_instance_uid, its_study.study_instance_uid,
           its_patient.patient_id, its_patient.patient_id_stated
    FROM instance
    JOIN series AS its_series ON its_series.id = instance.series_id
    JOIN study AS its_study ON its_study.id = its_series.study_id
    JOIN patient AS its_patient ON its_patient.id = its_study.patient_id
    WHERE instance.sop_instance_uid = %(sop_instance_uid)s
) AS known ON true
WHERE site.id = 1
""")

# Read under the item's lock, as `derive_item` does, so that of two writers the second sees all.
# A first run that found nothing to do changes no outcome: a scan has a thousand of them.
ANALYSES = Statement("""
SELECT analysis.id, analysis.instance_id, analysis.series_id, analysis.pipeline, analysis.run,
       analysis.state, analysis.outcome, analysis.probability, model_version.threshold
FROM analysis LEFT JOIN model_version ON model_version.id = analysis.model_version_id
WHERE analysis.study_id = (SELECT id FROM study WHERE study_instance_uid = %(study_instance_uid)s)
  AND analysis.purpose = 'live' AND NOT (analysis.state = 'not_eligible' AND analysis.run = 0)
""")

_INSTANCE_COLUMNS = """
    series_id, sop_instance_uid, sop_class_uid, transfer_syntax_uid, instance_number,
    view_position, path, size_bytes, sha256, source_ae_title, source_address, received_at"""
_INSTANCE_VALUES = """
    %(sop_instance_uid)s, %(sop_class_uid)s, %(transfer_syntax_uid)s, %(instance_number)s,
    %(view_position)s, %(path)s, %(size_bytes)s, %(sha256)s, %(source_ae_title)s,
    %(source_address)s, %(now)s"""
_SERIES_COLUMNS = "study_id, series_instance_uid, modality, body_part_examined, series_description"
_SERIES_VALUES = """
    %(series_instance_uid)s, %(modality)s, %(body_part_examined)s, %(series_description)s"""
_ANALYSIS_COLUMNS = """
    study_id, instance_id, pipeline, model_version_id, inputs_sha256, run, purpose, state,
    reasons, lane, band, due_at, attempt, failures, losses, late_results, received_at, queued_at,
    finished_at"""
_ANALYSIS_VALUES = """
    %(pipeline)s,
    (SELECT id FROM model_version WHERE pipeline = %(pipeline)s::varchar AND state = 'live'),
    %(sha256)s, 0, 'live', %(analysis_state)s,
    %(analysis_reasons)s, %(lane)s, %(band)s, %(due_at)s, 0, 0, 0, 0, %(now)s, %(now)s,
    %(finished_at)s"""

_ITEM = (
    "listed", "prior", "settled", "final", "outcome", "leading_analysis_id", "probability",
    "images", "new_image_since_read", "ai_ranked", "band", "due_at", "order_priority",
    "order_priority_source", "reason",
)  # fmt: skip
_ITEM_COLUMNS = f"study_id, {', '.join(_ITEM)}"
_ITEM_VALUES = ", ".join(f"%({name})s" for name in _ITEM)
_ITEM_UPDATES = ", ".join(f"{name} = excluded.{name}" for name in _ITEM)

# Everything of the first object of a study, all or nothing. Each step stands on the one before,
# which is also the order of the locks. No id comes back if one of the UIDs is there already; if
# another sender takes one of the names meanwhile, dividing by zero takes back what was begun.
NEW_STUDY = Statement(f"""
WITH free AS (
    SELECT WHERE
    NOT EXISTS (SELECT FROM study WHERE study_instance_uid = %(study_instance_uid)s::varchar)
    AND NOT EXISTS
        (SELECT FROM series WHERE series_instance_uid = %(series_instance_uid)s::varchar)
    AND NOT EXISTS (SELECT FROM instance WHERE sop_instance_uid = %(sop_instance_uid)s::varchar)
), new_patient AS (
    INSERT INTO patient (issuer_of_patient_id, patient_id, patient_id_stated, patient_name,
                         patient_birth_date, patient_sex)
    SELECT %(issuer)s, %(patient_id)s, %(patient_id_stated)s, %(patient_name)s,
           %(patient_birth_date)s, %(patient_sex)s
    FROM free ON CONFLICT DO NOTHING RETURNING id
), person AS (
    SELECT id FROM new_patient
    UNION ALL
    SELECT patient.id FROM patient, free
    WHERE issuer_of_patient_id = %(issuer)s::varchar AND patient_id = %(patient_id)s::varchar
    LIMIT 1
), new_study AS (
    INSERT INTO study (patient_id, study_instance_uid, accession_number, study_description,
                       study_date, study_time, patient_age, acquired_at,
                       requested_procedure_priority, study_priority_id, source_ae_title,
                       first_received_at, last_received_at)
    SELECT id, %(study_instance_uid)s, %(accession_number)s, %(study_description)s,
           %(study_date)s, %(study_time)s, %(patient_age)s, %(acquired_at)s,
           %(requested_procedure_priority)s, %(study_priority_id)s, %(source_ae_title)s,
           %(now)s, %(now)s
    FROM person ON CONFLICT DO NOTHING RETURNING id
), new_series AS (
    INSERT INTO series ({_SERIES_COLUMNS})
    SELECT id, {_SERIES_VALUES} FROM new_study ON CONFLICT DO NOTHING RETURNING id, study_id
), new_instance AS (
    INSERT INTO instance ({_INSTANCE_COLUMNS})
    SELECT id, {_INSTANCE_VALUES} FROM new_series ON CONFLICT DO NOTHING RETURNING id, series_id
), new_analysis AS (
    INSERT INTO analysis ({_ANALYSIS_COLUMNS})
    SELECT new_series.study_id, new_instance.id, {_ANALYSIS_VALUES}
    FROM new_instance JOIN new_series ON new_series.id = new_instance.series_id
    RETURNING id, study_id
), new_item AS (
    INSERT INTO worklist_item ({_ITEM_COLUMNS})
    SELECT study_id, {_ITEM_VALUES.replace("%(ai_ranked)s", "site.ai_ranking")}
    FROM new_analysis, site WHERE site.id = 1
)
SELECT (SELECT id FROM new_analysis) AS id, clock_timestamp() AS now,
       1 / CASE WHEN EXISTS (SELECT FROM new_analysis) OR NOT EXISTS (SELECT FROM free)
           THEN 1 ELSE 0 END AS whole
""")  # noqa: S608 - all of it is written here

FILLED_PATIENT = Statement("""
UPDATE patient SET patient_name = %(patient_name)s, patient_birth_date = %(patient_birth_date)s,
       patient_sex = %(patient_sex)s
WHERE id = %(patient_row)s
""")

# Everything of a later object of a study, all or nothing, under the locks that the look took.
# The queued rows that stand elsewhere follow the study's place, as `requeue_order` does it: a
# series must not rewrite all of them at each image.
LATER_OBJECT = Statement(f"""
WITH followed AS (
    UPDATE study SET last_received_at = %(last_received_at)s, acquired_at = %(acquired_at)s,
           requested_procedure_priority = %(requested_procedure_priority)s,
           study_priority_id = %(study_priority_id)s, accession_number = %(accession_number)s,
           study_description = %(study_description)s, study_date = %(study_date)s,
           study_time = %(study_time)s, patient_age = %(patient_age)s
    WHERE id = %(study_id)s
), new_series AS (
    INSERT INTO series ({_SERIES_COLUMNS})
    SELECT %(study_id)s, {_SERIES_VALUES} WHERE %(series_id)s::bigint IS NULL
    ON CONFLICT DO NOTHING RETURNING id
), its_series AS (
    SELECT id FROM new_series
    UNION ALL
    SELECT %(series_id)s::bigint WHERE %(series_id)s::bigint IS NOT NULL
), new_instance AS (
    INSERT INTO instance ({_INSTANCE_COLUMNS})
    SELECT id, {_INSTANCE_VALUES} FROM its_series ON CONFLICT DO NOTHING RETURNING id
), new_analysis AS (
    INSERT INTO analysis ({_ANALYSIS_COLUMNS})
    SELECT %(study_id)s, id, {_ANALYSIS_VALUES} FROM new_instance RETURNING id
), placed AS (
    INSERT INTO worklist_item ({_ITEM_COLUMNS}) VALUES (%(study_id)s, {_ITEM_VALUES})
    ON CONFLICT (study_id) DO UPDATE SET {_ITEM_UPDATES}
), requeued AS (
    UPDATE analysis SET band = %(band)s, due_at = %(due_at)s
    WHERE id IN (
        SELECT id FROM analysis
        WHERE study_id = %(study_id)s AND state = 'queued'
          AND (band, due_at) IS DISTINCT FROM (%(band)s::smallint, %(due_at)s)
        ORDER BY id FOR UPDATE
    )
)
SELECT id, 1 / CASE WHEN id IS NULL THEN 0 ELSE 1 END AS whole
FROM (SELECT (SELECT id FROM new_analysis) AS id) AS added
""")  # noqa: S608 - all of it is written here

# What retention deleted and a sender brings again. Whoever removes files locks the row, too.
LOCKED_DELETED = Statement("""
SELECT FROM instance
WHERE sop_instance_uid = %(sop_instance_uid)s AND deleted_at IS NOT NULL FOR NO KEY UPDATE
""")
RESTORED = Statement("""
WITH restored AS (
    UPDATE instance SET deleted_at = NULL, file_removed_at = NULL, received_at = clock_timestamp()
    WHERE sop_instance_uid = %(sop_instance_uid)s RETURNING series_id
)
UPDATE study SET last_received_at = clock_timestamp()
WHERE id = (SELECT series.study_id FROM series JOIN restored ON series.id = restored.series_id)
""")
