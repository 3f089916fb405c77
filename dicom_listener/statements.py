"""The SQL of registering an object: few statements, each prepared once a connection.

They go to Postgres in pipelines, several to a round trip, which the ORM cannot do: with it, what
an object cost was mostly round trips and the ORM's own work.

``LOCKED_STUDY`` stands alone on purpose. A statement that waits for a lock sees everything but the
locked row as it was before it waited: what else is asked must be asked by the next one.
"""

LOCKED_STUDY = """
SELECT id, patient_id, acquired_at, first_received_at, last_received_at, source_ae_title,
       requested_procedure_priority, study_priority_id, accession_number, study_description,
       study_date, study_time, patient_age
FROM study WHERE study_instance_uid = %(study_instance_uid)s FOR NO KEY UPDATE
"""

# One row, whatever is there: the study's patient, the series, and who has the UID already.
FACTS = """
SELECT clock_timestamp() AS now, study.id AS study_id,
       patient.issuer_of_patient_id, patient.patient_id, patient.patient_id_stated,
       patient.patient_name, patient.patient_birth_date, patient.patient_sex,
       series.id AS series_id, series.study_id AS series_study_id,
       known.sha256 AS known_sha256, known.path AS known_path, known.deleted AS known_deleted,
       known.series_instance_uid AS known_series_uid, known.study_instance_uid AS known_study_uid,
       known.patient_id AS known_patient_id, known.patient_id_stated AS known_patient_id_stated
FROM site
LEFT JOIN (study JOIN patient ON patient.id = study.patient_id)
       ON study.study_instance_uid = %(study_instance_uid)s
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
"""

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

_ITEM_COLUMNS = """
    study_id, listed, prior, settled, final, outcome, leading_analysis_id, probability, images,
    new_image_since_read, ai_ranked, band, due_at, order_priority, order_priority_source, reason"""
_ITEM_VALUES = """
    %(listed)s, %(prior)s, %(settled)s, %(final)s, %(outcome)s, %(leading_analysis_id)s,
    %(probability)s, %(images)s, %(new_image_since_read)s, %(ai_ranked)s, %(band)s, %(due_at)s,
    %(order_priority)s, %(order_priority_source)s, %(reason)s"""

# Everything of the first object of a study, all or nothing. Each step stands on the one before,
# which is also the order of the locks. No id comes back if one of the UIDs is there already; if
# another sender takes one of the names meanwhile, dividing by zero takes back what was begun.
NEW_STUDY = f"""
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
"""  # noqa: S608 - all of it is written here

FILLED_PATIENT = """
UPDATE patient SET patient_name = %(patient_name)s, patient_birth_date = %(patient_birth_date)s,
       patient_sex = %(patient_sex)s
WHERE id = %(patient_row)s
"""

FOLLOWED_STUDY = """
UPDATE study SET last_received_at = %(last_received_at)s, acquired_at = %(acquired_at)s,
       requested_procedure_priority = %(requested_procedure_priority)s,
       study_priority_id = %(study_priority_id)s, accession_number = %(accession_number)s,
       study_description = %(study_description)s, study_date = %(study_date)s,
       study_time = %(study_time)s, patient_age = %(patient_age)s
WHERE id = %(study_id)s
"""

INSTANCE_OF_NEW_SERIES = f"""
WITH new_series AS (
    INSERT INTO series ({_SERIES_COLUMNS})
    VALUES (%(study_id)s, {_SERIES_VALUES}) ON CONFLICT DO NOTHING RETURNING id
)
INSERT INTO instance ({_INSTANCE_COLUMNS})
SELECT id, {_INSTANCE_VALUES} FROM new_series ON CONFLICT DO NOTHING RETURNING id
"""  # noqa: S608 - all of it is written here

INSTANCE_OF_SERIES = f"""
INSERT INTO instance ({_INSTANCE_COLUMNS})
VALUES (%(series_id)s, {_INSTANCE_VALUES}) ON CONFLICT DO NOTHING RETURNING id
"""  # noqa: S608 - all of it is written here

# What retention deleted and a sender brings again. Whoever removes files locks the row, too.
LOCKED_DELETED = """
SELECT 1 FROM instance
WHERE sop_instance_uid = %(sop_instance_uid)s AND deleted_at IS NOT NULL FOR NO KEY UPDATE
"""
RESTORED = """
WITH restored AS (
    UPDATE instance SET deleted_at = NULL, file_removed_at = NULL, received_at = clock_timestamp()
    WHERE sop_instance_uid = %(sop_instance_uid)s RETURNING series_id
)
UPDATE study SET last_received_at = clock_timestamp()
WHERE id = (SELECT series.study_id FROM series JOIN restored ON series.id = restored.series_id)
"""

LOCKED_ITEM = "SELECT study_id FROM worklist_item WHERE study_id = %(study_id)s FOR UPDATE"

# Read under the item's lock, as `derive_item` does, so that of two writers the second sees all.
ANALYSES = """
SELECT analysis.id, analysis.instance_id, analysis.series_id, analysis.pipeline, analysis.run,
       analysis.state, analysis.outcome, analysis.probability, model_version.threshold
FROM analysis LEFT JOIN model_version ON model_version.id = analysis.model_version_id
WHERE analysis.study_id = %(study_id)s AND analysis.purpose = 'live'
"""
READING = """
SELECT site.ai_ranking, clock_timestamp() AS now, reading.state, reading.instances_read,
       reading.order_priority,
       CASE WHEN reading.state = 'read' THEN (
           SELECT count(*) FROM instance JOIN series ON series.id = instance.series_id
           WHERE series.study_id = %(study_id)s
       ) ELSE 0 END AS instances
FROM site LEFT JOIN reading ON reading.study_id = %(study_id)s
WHERE site.id = 1
"""

NEW_ANALYSIS = f"""
INSERT INTO analysis ({_ANALYSIS_COLUMNS})
VALUES (%(study_id)s, %(instance_id)s, {_ANALYSIS_VALUES}) RETURNING id
"""  # noqa: S608 - all of it is written here

DERIVED_ITEM = f"""
INSERT INTO worklist_item ({_ITEM_COLUMNS}) VALUES (%(study_id)s, {_ITEM_VALUES})
ON CONFLICT (study_id) DO UPDATE SET
    listed = excluded.listed, prior = excluded.prior, settled = excluded.settled,
    final = excluded.final, outcome = excluded.outcome,
    leading_analysis_id = excluded.leading_analysis_id, probability = excluded.probability,
    images = excluded.images, new_image_since_read = excluded.new_image_since_read,
    ai_ranked = excluded.ai_ranked, band = excluded.band, due_at = excluded.due_at,
    order_priority = excluded.order_priority,
    order_priority_source = excluded.order_priority_source, reason = excluded.reason
"""  # noqa: S608 - all of it is written here

# As `requeue_order`, of the rows that stand elsewhere: a series must not rewrite all at each image.
REQUEUED = """
UPDATE analysis SET band = %(band)s, due_at = %(due_at)s
WHERE id IN (
    SELECT id FROM analysis
    WHERE study_id = %(study_id)s AND state = 'queued'
      AND (band, due_at) IS DISTINCT FROM (%(band)s::smallint, %(due_at)s)
    ORDER BY id FOR UPDATE
)
"""
