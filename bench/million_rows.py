"""Fill a ledger with studies as years of work leave them; ``bench.million`` asks it questions.

Rows in every table, made by the server itself in bulk. UIDs, hashes and names are spread as in
life, for neighbours on a page of an index are what makes a large table look cheap. One in
``READ_EVERY`` studies was read, the rest stand unread: no site has so many, the list must bear it.
"""

import time

from sqlalchemy import Connection, create_engine, text

CHUNK = 50_000
READ_EVERY = 2

# What a row of a chunk is made of; :first and :last are numbers of studies.
_NUMBERS = """
CREATE TEMPORARY TABLE made ON COMMIT DROP AS
SELECT n, md5('study' || n) AS hex, md5('patient' || n * 7 / 10) AS person,
       n * 7 / 10 + 1 AS patient_id, now() - (:total - n) * interval '31 seconds' AS at,
       n % :read_every = 0 AS is_read, 1 + n % 2 AS images
FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS n
"""
_STEPS = {
    "patient": """
INSERT INTO patient (id, issuer_of_patient_id, patient_id, patient_id_stated, patient_name,
                     patient_birth_date, patient_sex)
OVERRIDING SYSTEM VALUE
SELECT DISTINCT ON (patient_id) patient_id, '', 'P' || lpad(CAST(patient_id AS text), 9, '0'), true,
       upper(translate(substr(person, 1, 7), '0123456789', 'aeioulnrst')) || '^'
       || upper(translate(substr(person, 9, 5), '0123456789', 'aeioulnrst')),
       to_char(date '1930-01-01' + CAST(patient_id % 29000 AS int), 'YYYYMMDD'),
       CASE patient_id % 2 WHEN 0 THEN 'F' ELSE 'M' END
FROM made ON CONFLICT DO NOTHING
""",
    "study": """
INSERT INTO study (id, patient_id, study_instance_uid, accession_number, study_description,
                   study_date, study_time, patient_age, acquired_at, requested_procedure_priority,
                   study_priority_id, source_ae_title, first_received_at, last_received_at)
OVERRIDING SYSTEM VALUE
SELECT n, patient_id, '1.2.840.99.' || translate(hex, 'abcdef', '012345'),
       'A' || lpad(CAST(n AS text), 9, '0'), 'Chest PA and lateral', to_char(at, 'YYYYMMDD'),
       to_char(at, 'HH24MISS'), '', at - interval '4 minutes', '', '', 'CR_ROOM_' || n % 9, at,
       at + interval '5 seconds'
FROM made
""",
    "series": """
INSERT INTO series (id, study_id, series_instance_uid, modality, body_part_examined,
                    series_description)
OVERRIDING SYSTEM VALUE
SELECT n, n, '1.2.840.99.' || translate(hex, 'abcdef', '012345') || '.1', 'DX', 'CHEST', ''
FROM made
""",
    "instance": """
INSERT INTO instance (id, series_id, sop_instance_uid, sop_class_uid, transfer_syntax_uid,
                      instance_number, view_position, path, size_bytes, sha256, source_ae_title,
                      source_address, received_at)
OVERRIDING SYSTEM VALUE
SELECT 2 * n + k - 1, n, '1.2.840.99.' || translate(hex, 'abcdef', '012345') || '.1.' || k,
       '1.2.840.10008.5.1.4.1.1.1.1', '1.2.840.10008.1.2.1', k,
       CASE k WHEN 1 THEN 'PA' ELSE 'LL' END,
       'objects/' || substr(md5(hex || k), 1, 2) || '/' || md5(hex || k) || md5(k || hex) || '.dcm',
       9000000 + n % 3000000, decode(md5(hex || k) || md5(k || hex), 'hex'), 'CR_ROOM_' || n % 9,
       '192.0.2.10', at + (k - 1) * interval '5 seconds'
FROM made, generate_series(1, images) AS k
""",
    "analysis": """
INSERT INTO analysis (id, study_id, instance_id, pipeline, model_version_id, inputs_sha256, run,
                      purpose, state, lane, band, due_at, attempt, worker, failures, losses,
                      late_results, error, score, probability, outcome, reasons,
                      insight_probability, heatmap, heatmap_rows, heatmap_columns, heatmap_affine,
                      rows, columns, rendition, received_at, queued_at, claimed_at, decoded_at,
                      predicted_at, finished_at)
OVERRIDING SYSTEM VALUE
SELECT 2 * n + k - 1, n, 2 * n + k - 1, 'chest_xray', 1,
       decode(md5(hex || k) || md5(k || hex), 'hex'), 0, 'live', state, 0, band, at, 1,
       'worker-1:4711', CASE state WHEN 'failed' THEN 3 ELSE 0 END, 0, 0,
       CASE state WHEN 'failed' THEN 'UnreadablePixelsError: cut off' END,
       CASE state WHEN 'done' THEN ln(p / (1 - p)) END, CASE state WHEN 'done' THEN p END,
       CASE WHEN state = 'done' THEN CASE WHEN p >= 0.4 THEN 'flagged' ELSE 'not_flagged' END END,
       CASE state WHEN 'not_eligible' THEN ARRAY['view position is LL'] ELSE ARRAY[]::text[] END,
       CASE state WHEN 'done' THEN p END,
       CASE state WHEN 'done' THEN decode(repeat(md5(hex), 14) || '0011', 'hex') END,
       CASE state WHEN 'done' THEN 15 END, CASE state WHEN 'done' THEN 15 END,
       CASE state WHEN 'done' THEN ARRAY[2500.0, 0, 0, 0, 2048, 0] END, 2500, 2048,
       'renditions/' || substr(md5(hex || k), 1, 2) || '/' || md5(hex || k) || md5(k || hex)
       || '.png', at, at, at + interval '50 milliseconds', at + interval '300 milliseconds',
       at + interval '800 milliseconds', at + interval '900 milliseconds'
FROM (SELECT *, CASE WHEN k = 2 THEN 'not_eligible' WHEN n % 500 = 7 THEN 'failed' ELSE 'done' END
             AS state, 0.001 + ((n * 7919) % 997) / 1000.0 * ((n * 31) % 13) / 13.0 AS p,
             1 + CAST(n % 10 > 0 AS int) AS band
      FROM made, generate_series(1, images) AS k) AS unit
""",
    "worklist_item": """
INSERT INTO worklist_item (study_id, listed, prior, settled, final, outcome, leading_analysis_id,
                           probability, images, new_image_since_read, ai_ranked, band, due_at,
                           order_priority, order_priority_source, reason)
SELECT n, NOT is_read, false, true, true,
       CASE WHEN a.state = 'failed' THEN 'incomplete' ELSE a.outcome END,
       CASE a.state WHEN 'done' THEN a.id END, a.probability,
       CASE a.state WHEN 'done' THEN 1 ELSE 0 END, false, true,
       CASE WHEN n % 200 = 3 THEN 0
            WHEN a.outcome = 'flagged' OR n % 20 = 1 OR at < now() - interval '72 hours' THEN 1
            ELSE 2 END,
       at + interval '24 hours', 'routine', 'default', 'Routine order, due within 24 hours'
FROM made JOIN analysis a ON a.id = 2 * n
""",
    "reading": """
INSERT INTO reading (study_id, state, read_by, read_at, reported_elsewhere, instances_read)
SELECT n, 'read', 'reader' || n % 20, at + interval '3 hours', false, images
FROM made WHERE is_read
""",
    "audit_event": """
INSERT INTO audit_event (at, actor, action, study_instance_uid, detail)
SELECT at + k * interval '1 hour', 'reader' || n % 20,
       CASE k WHEN 2 THEN 'study_opened' ELSE 'study_read' END,
       '1.2.840.99.' || translate(hex, 'abcdef', '012345'), '{}'
FROM made, generate_series(2, 3) AS k WHERE is_read
""",
    "set_aside": """
INSERT INTO set_aside (sop_instance_uid, study_instance_uid, sha256, kind, path, size_bytes,
                       source_ae_title, source_address, received_at)
SELECT '1.2.840.99.' || translate(hex, 'abcdef', '012345') || '.1.1',
       '1.2.840.99.' || translate(hex, 'abcdef', '012345'), decode(md5(hex) || md5(hex), 'hex'),
       'revision', 'objects/' || md5(hex) || '.dcm', 9000000, 'CR_ROOM_1', '192.0.2.10', at
FROM made WHERE n % 1000 = 11
""",
}
_MODEL = """
INSERT INTO model_version (id, pipeline, name, version, bundle_sha256, folder, threshold, state)
OVERRIDING SYSTEM VALUE
VALUES (1, 'chest_xray', 'bench', '1.0.0', repeat('0', 64), '/nowhere', 0.4, 'live')
ON CONFLICT DO NOTHING
"""
_KEYED = ("patient", "study", "series", "instance", "analysis", "model_version")


def fill(url: str, studies: int) -> None:
    """Add studies until there are so many. Safe to repeat after an interruption."""
    engine = create_engine(url)
    started = time.monotonic()
    with engine.begin() as connection:
        done = connection.execute(text("SELECT coalesce(max(id) + 1, 0) FROM study")).scalar_one()
        connection.execute(text(_MODEL))
    for first in range(done, studies, CHUNK):
        with engine.begin() as connection:
            _fill_chunk(connection, first, min(first + CHUNK, studies) - 1, studies)
        print(f"{first + CHUNK} studies, {time.monotonic() - started:.0f} s", flush=True)
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    with autocommit.connect() as connection:
        for table in _KEYED:
            connection.execute(
                text(
                    f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), "  # noqa: S608 - ours
                    f"(SELECT max(id) + 1 FROM {table}))"
                )
            )
        if done < studies:
            connection.execute(text("VACUUM ANALYZE"))
    engine.dispose()
    print(f"filled in {time.monotonic() - started:.0f} s", flush=True)


def _fill_chunk(connection: Connection, first: int, last: int, total: int) -> None:
    # Foreign keys hold by the way the rows are made; checking them one by one takes half the time.
    connection.execute(text("SET LOCAL session_replication_role = replica"))
    connection.execute(text("SET LOCAL synchronous_commit = off"))
    connection.execute(
        text(_NUMBERS),
        {"first": first, "last": last, "total": total, "read_every": READ_EVERY},
    )
    connection.execute(text("ANALYZE made"))
    for statement in _STEPS.values():
        connection.execute(text(statement))
