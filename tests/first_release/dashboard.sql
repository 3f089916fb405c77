-- name: page
SELECT worklist_item.study_id, worklist_item.listed, worklist_item.prior, worklist_item.settled,
    worklist_item.final, worklist_item.outcome, worklist_item.leading_analysis_id,
    worklist_item.probability, worklist_item.images, worklist_item.new_image_since_read,
    worklist_item.ai_ranked, worklist_item.band, worklist_item.due_at,
    worklist_item.order_priority, worklist_item.order_priority_source, worklist_item.reason,
    study.id, study.patient_id, study.study_instance_uid, study.accession_number,
    study.study_description, study.study_date, study.study_time, study.patient_age,
    study.acquired_at, study.requested_procedure_priority, study.study_priority_id,
    study.source_ae_title, study.first_received_at, study.last_received_at, patient.id AS id_1,
    patient.issuer_of_patient_id, patient.patient_id AS patient_id_1, patient.patient_id_stated,
    patient.patient_name, patient.patient_birth_date, patient.patient_sex,
    reading.study_id AS study_id_1, reading.state, reading.claimed_by, reading.claimed_until,
    reading.read_by, reading.read_at, reading.reported_elsewhere, reading.instances_read,
    reading.order_priority AS order_priority_1
FROM worklist_item JOIN study ON study.id = worklist_item.study_id
    JOIN patient ON patient.id = study.patient_id
    LEFT OUTER JOIN reading ON reading.study_id = worklist_item.study_id
WHERE worklist_item.listed
ORDER BY worklist_item.band, worklist_item.due_at, worklist_item.study_id LIMIT 51

-- name: pulse
SELECT clock_timestamp() AS as_of, (SELECT max(study.last_received_at) FROM study),
    (SELECT analysis.finished_at FROM analysis
     WHERE analysis.state = 'done' AND analysis.finished_at IS NOT NULL
     ORDER BY analysis.finished_at DESC LIMIT 1),
    (SELECT min(analysis.queued_at) FROM analysis WHERE analysis.state = 'queued'),
    (SELECT site.ai_ranking FROM site WHERE site.id = 1)

-- name: images
SELECT instance.id, instance.sop_instance_uid, instance.view_position, instance.received_at,
    series.modality, analysis.state, analysis.outcome, analysis.probability, analysis.heatmap,
    analysis.rendition, model_version.name, model_version.version
FROM instance JOIN series ON series.id = instance.series_id
    JOIN study ON study.id = series.study_id
    LEFT OUTER JOIN analysis ON analysis.instance_id = instance.id
    LEFT OUTER JOIN model_version ON model_version.id = analysis.model_version_id
WHERE study.id = %(study_id)s ORDER BY series.id, instance.instance_number NULLS LAST LIMIT 60

-- name: new_reading
INSERT INTO reading (study_id, state, reported_elsewhere)
VALUES (%(study_id)s, 'unread', false) ON CONFLICT DO NOTHING

-- name: locked_reading
SELECT reading.study_id, reading.state, reading.claimed_by, reading.claimed_until,
    reading.read_by, reading.read_at, reading.reported_elsewhere, reading.instances_read,
    reading.order_priority
FROM reading
WHERE reading.study_id = %(study_id)s FOR UPDATE

-- name: claim
UPDATE reading SET state='claimed', claimed_by='anna',
    claimed_until=(clock_timestamp() + interval '1800 seconds')
WHERE reading.study_id = %(study_id)s AND (reading.state = 'unread'
    OR reading.state = 'claimed' AND (reading.claimed_by = 'anna'
        OR reading.claimed_until < clock_timestamp())
    OR reading.state = 'read' AND (SELECT worklist_item.new_image_since_read
        FROM worklist_item WHERE worklist_item.study_id = %(study_id)s))
RETURNING reading.study_id

-- name: raise
UPDATE reading SET order_priority='stat' WHERE reading.study_id = %(study_id)s

-- name: locked_item
SELECT worklist_item.study_id FROM worklist_item
WHERE worklist_item.study_id = %(study_id)s FOR UPDATE

-- name: place
UPDATE worklist_item SET band=0, due_at=clock_timestamp(), order_priority='stat',
    order_priority_source='person', reason='STAT order (set by a person)'
WHERE worklist_item.study_id = %(study_id)s

-- name: requeue
UPDATE analysis SET band=0, due_at=clock_timestamp()
WHERE analysis.id IN (
    SELECT analysis.id FROM analysis
    WHERE analysis.study_id = %(study_id)s AND analysis.state = 'queued' AND analysis.band != 0
    ORDER BY analysis.id FOR UPDATE
)

-- name: read
UPDATE reading SET state='read', claimed_by=NULL, claimed_until=NULL, read_by='anna',
    read_at=clock_timestamp(), instances_read=2
WHERE reading.study_id = %(study_id)s

-- name: off_the_list
UPDATE worklist_item SET listed=false WHERE worklist_item.study_id = %(study_id)s

-- name: audit
INSERT INTO audit_event (actor, action, study_instance_uid, detail)
VALUES ('anna', %(action)s, %(study_instance_uid)s, '{}')
RETURNING audit_event.id, audit_event.at
