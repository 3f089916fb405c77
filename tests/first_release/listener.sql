-- name: locked_study
SELECT id, patient_id, acquired_at, first_received_at, last_received_at, source_ae_title,
       requested_procedure_priority, study_priority_id, accession_number, study_description,
       study_date, study_time, patient_age
FROM study WHERE study_instance_uid = %(study_instance_uid)s FOR NO KEY UPDATE

-- name: facts
SELECT clock_timestamp() AS now, site.ai_ranking,
       (SELECT id FROM model_version
        WHERE pipeline = %(pipeline)s AND state = 'live') AS model_version_id,
       study.id AS study_id,
       patient.issuer_of_patient_id, patient.patient_id, patient.patient_id_stated,
       patient.patient_name, patient.patient_birth_date, patient.patient_sex,
       series.id AS series_id, series.study_id AS series_study_id,
       known.sha256 AS known_sha256, known.path AS known_path,
       known.series_instance_uid AS known_series_uid, known.study_instance_uid AS known_study_uid,
       known.patient_id AS known_patient_id, known.patient_id_stated AS known_patient_id_stated
FROM site
LEFT JOIN (study JOIN patient ON patient.id = study.patient_id)
       ON study.study_instance_uid = %(study_instance_uid)s
LEFT JOIN series ON series.series_instance_uid = %(series_instance_uid)s
LEFT JOIN LATERAL (
    SELECT instance.sha256, instance.path, its_series.series_instance_uid,
           its_study.study_instance_uid, its_patient.patient_id, its_patient.patient_id_stated
    FROM instance
    JOIN series AS its_series ON its_series.id = instance.series_id
    JOIN study AS its_study ON its_study.id = its_series.study_id
    JOIN patient AS its_patient ON its_patient.id = its_study.patient_id
    WHERE instance.sop_instance_uid = %(sop_instance_uid)s
) AS known ON true
WHERE site.id = 1

-- name: new_study
WITH new_patient AS (
    INSERT INTO patient (issuer_of_patient_id, patient_id, patient_id_stated, patient_name,
                         patient_birth_date, patient_sex)
    VALUES (%(issuer)s, %(patient_id)s, %(patient_id_stated)s, %(patient_name)s,
            %(patient_birth_date)s, %(patient_sex)s)
    ON CONFLICT DO NOTHING RETURNING id
), person AS (
    SELECT id FROM new_patient
    UNION ALL
    SELECT id FROM patient
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
    INSERT INTO series (study_id, series_instance_uid, modality, body_part_examined, series_description)
    SELECT id, 
    %(series_instance_uid)s, %(modality)s, %(body_part_examined)s, %(series_description)s FROM new_study ON CONFLICT DO NOTHING RETURNING id, study_id
), new_instance AS (
    INSERT INTO instance (
    series_id, sop_instance_uid, sop_class_uid, transfer_syntax_uid, instance_number,
    view_position, path, size_bytes, sha256, source_ae_title, source_address, received_at)
    SELECT id, 
    %(sop_instance_uid)s, %(sop_class_uid)s, %(transfer_syntax_uid)s, %(instance_number)s,
    %(view_position)s, %(path)s, %(size_bytes)s, %(sha256)s, %(source_ae_title)s,
    %(source_address)s, %(now)s FROM new_series ON CONFLICT DO NOTHING RETURNING id, series_id
), new_analysis AS (
    INSERT INTO analysis (
    study_id, instance_id, pipeline, model_version_id, inputs_sha256, run, purpose, state,
    reasons, lane, band, due_at, attempt, failures, losses, late_results, received_at, queued_at,
    finished_at)
    SELECT new_series.study_id, new_instance.id, 
    %(pipeline)s, %(model_version_id)s, %(sha256)s, 0, 'live', %(analysis_state)s,
    %(analysis_reasons)s, %(lane)s, %(band)s, %(due_at)s, 0, 0, 0, 0, %(now)s, %(now)s,
    %(finished_at)s
    FROM new_instance JOIN new_series ON new_series.id = new_instance.series_id
    RETURNING id, study_id
), new_item AS (
    INSERT INTO worklist_item (
    study_id, listed, prior, settled, final, outcome, leading_analysis_id, probability, images,
    new_image_since_read, ai_ranked, band, due_at, order_priority, order_priority_source, reason)
    SELECT study_id, 
    %(listed)s, %(prior)s, %(settled)s, %(final)s, %(outcome)s, %(leading_analysis_id)s,
    %(probability)s, %(images)s, %(new_image_since_read)s, %(ai_ranked)s, %(band)s, %(due_at)s,
    %(order_priority)s, %(order_priority_source)s, %(reason)s
    FROM new_analysis
)
SELECT id FROM new_analysis

-- name: followed_study
UPDATE study SET last_received_at = %(last_received_at)s, acquired_at = %(acquired_at)s,
       requested_procedure_priority = %(requested_procedure_priority)s,
       study_priority_id = %(study_priority_id)s, accession_number = %(accession_number)s,
       study_description = %(study_description)s, study_date = %(study_date)s,
       study_time = %(study_time)s, patient_age = %(patient_age)s
WHERE id = %(study_id)s

-- name: instance_of_series
INSERT INTO instance (
    series_id, sop_instance_uid, sop_class_uid, transfer_syntax_uid, instance_number,
    view_position, path, size_bytes, sha256, source_ae_title, source_address, received_at)
VALUES (%(series_id)s, 
    %(sop_instance_uid)s, %(sop_class_uid)s, %(transfer_syntax_uid)s, %(instance_number)s,
    %(view_position)s, %(path)s, %(size_bytes)s, %(sha256)s, %(source_ae_title)s,
    %(source_address)s, %(now)s) ON CONFLICT DO NOTHING RETURNING id

-- name: locked_item
SELECT study_id FROM worklist_item WHERE study_id = %(study_id)s FOR UPDATE

-- name: analyses
SELECT analysis.id, analysis.instance_id, analysis.series_id, analysis.pipeline, analysis.run,
       analysis.state, analysis.outcome, analysis.probability, model_version.threshold
FROM analysis LEFT JOIN model_version ON model_version.id = analysis.model_version_id
WHERE analysis.study_id = %(study_id)s AND analysis.purpose = 'live'

-- name: reading
SELECT site.ai_ranking, clock_timestamp() AS now, reading.state, reading.instances_read,
       reading.order_priority,
       CASE WHEN reading.state = 'read' THEN (
           SELECT count(*) FROM instance JOIN series ON series.id = instance.series_id
           WHERE series.study_id = %(study_id)s
       ) ELSE 0 END AS instances
FROM site LEFT JOIN reading ON reading.study_id = %(study_id)s
WHERE site.id = 1

-- name: new_analysis
INSERT INTO analysis (
    study_id, instance_id, pipeline, model_version_id, inputs_sha256, run, purpose, state,
    reasons, lane, band, due_at, attempt, failures, losses, late_results, received_at, queued_at,
    finished_at)
VALUES (%(study_id)s, %(instance_id)s, 
    %(pipeline)s, %(model_version_id)s, %(sha256)s, 0, 'live', %(analysis_state)s,
    %(analysis_reasons)s, %(lane)s, %(band)s, %(due_at)s, 0, 0, 0, 0, %(now)s, %(now)s,
    %(finished_at)s) RETURNING id

-- name: derived_item
INSERT INTO worklist_item (
    study_id, listed, prior, settled, final, outcome, leading_analysis_id, probability, images,
    new_image_since_read, ai_ranked, band, due_at, order_priority, order_priority_source, reason) VALUES (%(study_id)s, 
    %(listed)s, %(prior)s, %(settled)s, %(final)s, %(outcome)s, %(leading_analysis_id)s,
    %(probability)s, %(images)s, %(new_image_since_read)s, %(ai_ranked)s, %(band)s, %(due_at)s,
    %(order_priority)s, %(order_priority_source)s, %(reason)s)
ON CONFLICT (study_id) DO UPDATE SET
    listed = excluded.listed, prior = excluded.prior, settled = excluded.settled,
    final = excluded.final, outcome = excluded.outcome,
    leading_analysis_id = excluded.leading_analysis_id, probability = excluded.probability,
    images = excluded.images, new_image_since_read = excluded.new_image_since_read,
    ai_ranked = excluded.ai_ranked, band = excluded.band, due_at = excluded.due_at,
    order_priority = excluded.order_priority,
    order_priority_source = excluded.order_priority_source, reason = excluded.reason

-- name: requeued
UPDATE analysis SET band = %(band)s, due_at = %(due_at)s
WHERE id IN (
    SELECT id FROM analysis
    WHERE study_id = %(study_id)s AND state = 'queued'
      AND (band, due_at) IS DISTINCT FROM (%(band)s::smallint, %(due_at)s)
    ORDER BY id FOR UPDATE
)

-- name: set_aside
INSERT INTO set_aside (sop_instance_uid, study_instance_uid, sha256, kind, path, size_bytes,
    source_ae_title, source_address, received_at)
VALUES (%(sop_instance_uid)s, %(study_instance_uid)s, %(sha256)s, 'revision', %(path)s,
    %(size_bytes)s, %(source_ae_title)s, %(source_address)s, %(now)s)
ON CONFLICT DO NOTHING RETURNING set_aside.id
