-- name: live_models
SELECT model_version.id, model_version.pipeline, model_version.name, model_version.version,
    model_version.bundle_sha256, model_version.folder, model_version.threshold,
    model_version.state, model_version.registered_at, model_version.activated_at
FROM model_version
WHERE model_version.state = 'live'

-- name: claim
UPDATE analysis SET state='running', attempt=(analysis.attempt + 1), worker=%(worker)s,
    lease_until=(clock_timestamp() + %(lease)s), claimed_at=clock_timestamp()
FROM instance
WHERE analysis.id = (
    SELECT analysis.id FROM analysis
    WHERE analysis.state = 'queued' AND analysis.model_version_id IN (%(model_version_id)s)
        AND analysis.instance_id IS NOT NULL
    ORDER BY analysis.lane, analysis.band, analysis.due_at, analysis.id
    LIMIT 1 FOR UPDATE SKIP LOCKED
) AND analysis.instance_id = instance.id
RETURNING analysis.id, analysis.attempt, analysis.study_id, analysis.pipeline,
    analysis.model_version_id, analysis.band, analysis.due_at, analysis.losses,
    analysis.received_at, analysis.queued_at, analysis.claimed_at, instance.path,
    instance.sha256, instance.sop_instance_uid

-- name: renew
UPDATE analysis SET lease_until=(clock_timestamp() + %(lease)s)
WHERE analysis.state = 'running' AND analysis.id = %(id)s AND analysis.attempt = %(attempt)s
RETURNING analysis.id

-- name: finish
UPDATE analysis SET state='done', lease_until=NULL, error=NULL, score=2.0, probability=0.88,
    outcome='flagged', reasons='{}', insight_probability=0.9, heatmap='\x00380038'::bytea,
    heatmap_rows=1, heatmap_columns=2, heatmap_affine='{40, 0, 0, 0, 30, 0}', rows=30,
    columns=40, rendition='renditions/a.png', decoded_at=clock_timestamp(),
    predicted_at=clock_timestamp(), finished_at=clock_timestamp()
WHERE analysis.id = %(id)s AND analysis.state = 'running' AND analysis.attempt = %(attempt)s

-- name: fail
UPDATE analysis SET state=CASE WHEN (analysis.failures + 1 >= 3) THEN 'failed' ELSE 'queued' END,
    lease_until=NULL, failures=(analysis.failures + 1), error='pixel data cut off',
    finished_at=CASE WHEN (analysis.failures + 1 >= 3) THEN clock_timestamp() END
WHERE analysis.id = %(id)s AND analysis.state = 'running' AND analysis.attempt = %(attempt)s

-- name: new_item
INSERT INTO worklist_item (study_id, listed, prior, settled, final, outcome, images,
    new_image_since_read, ai_ranked, band, due_at, order_priority, order_priority_source, reason)
VALUES (%(study_id)s, false, false, false, false, 'pending', 0, false, true, 2,
    clock_timestamp(), 'routine', 'default', '')
ON CONFLICT DO NOTHING

-- name: locked_item
SELECT worklist_item.study_id FROM worklist_item
WHERE worklist_item.study_id = %(study_id)s FOR UPDATE

-- name: item
SELECT worklist_item.study_id, worklist_item.listed, worklist_item.prior, worklist_item.settled,
    worklist_item.final, worklist_item.outcome, worklist_item.leading_analysis_id,
    worklist_item.probability, worklist_item.images, worklist_item.new_image_since_read,
    worklist_item.ai_ranked, worklist_item.band, worklist_item.due_at,
    worklist_item.order_priority, worklist_item.order_priority_source, worklist_item.reason
FROM worklist_item
WHERE worklist_item.study_id = %(study_id)s

-- name: analyses
SELECT analysis.id, analysis.instance_id, analysis.series_id, analysis.pipeline, analysis.run,
    analysis.state, analysis.outcome, analysis.probability, model_version.threshold
FROM analysis LEFT OUTER JOIN model_version ON model_version.id = analysis.model_version_id
WHERE analysis.study_id = %(study_id)s AND analysis.purpose = 'live'

-- name: derive
UPDATE worklist_item SET listed=true, outcome='flagged', leading_analysis_id=%(id)s,
    probability=0.88, images=1, band=1, due_at=%(due_at)s,
    reason='Flagged by AI, brought forward to 46 min after arrival'
WHERE worklist_item.study_id = %(study_id)s

-- name: expire
UPDATE analysis SET state='queued', worker=NULL, lease_until=NULL, losses=(analysis.losses + 1)
WHERE analysis.id IN (
    SELECT analysis.id FROM analysis
    WHERE analysis.state = 'running' AND analysis.lease_until < clock_timestamp()
    ORDER BY analysis.id LIMIT 500 FOR UPDATE SKIP LOCKED
)
RETURNING analysis.id

-- name: follow_live
UPDATE analysis SET model_version_id=model_version.id
FROM model_version
WHERE analysis.id IN (
    SELECT analysis.id FROM analysis
    WHERE analysis.state = 'queued' AND analysis.purpose = 'live'
        AND NOT (EXISTS (SELECT * FROM model_version
            WHERE model_version.id = analysis.model_version_id AND model_version.state = 'live'))
        AND (EXISTS (SELECT * FROM model_version AS model_version_1
            WHERE model_version_1.pipeline = analysis.pipeline
                AND model_version_1.state = 'live'))
    LIMIT 1000 FOR UPDATE SKIP LOCKED
) AND model_version.pipeline = analysis.pipeline AND model_version.state = 'live'
RETURNING analysis.id

-- name: unsettled
SELECT worklist_item.study_id
FROM worklist_item JOIN study ON study.id = worklist_item.study_id
WHERE NOT worklist_item.settled
    AND study.last_received_at < clock_timestamp() - interval '0.2 seconds'
ORDER BY worklist_item.study_id LIMIT 200

-- name: settle
UPDATE worklist_item SET settled=true WHERE worklist_item.study_id = %(study_id)s

-- name: past_cap
SELECT worklist_item.study_id
FROM worklist_item JOIN study ON study.id = worklist_item.study_id
WHERE worklist_item.listed AND worklist_item.band = 2
    AND study.first_received_at < clock_timestamp() - interval '72 hours'
ORDER BY worklist_item.study_id LIMIT 200

-- name: otherwise_ranked
SELECT worklist_item.study_id
FROM worklist_item
WHERE worklist_item.listed AND worklist_item.ai_ranked != (
    SELECT site.ai_ranking FROM site WHERE site.id = 1
)
ORDER BY worklist_item.study_id LIMIT 25

-- name: queued
SELECT analysis.id
FROM analysis
WHERE analysis.state = 'queued' AND analysis.model_version_id IS NOT NULL
ORDER BY analysis.lane, analysis.band, analysis.due_at, analysis.id LIMIT 4
