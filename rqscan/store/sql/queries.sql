-- The statements that both databases read alike.

-- name: migrations()
-- Every migration that was applied, oldest first.
SELECT name, checksum FROM schema_migrations ORDER BY version;

-- name: add_migration(version, name, checksum, applied_at)!
-- Record a migration as applied.
INSERT INTO schema_migrations (version, name, checksum, applied_at)
VALUES (:version, :name, :checksum, :applied_at);

-- name: meta(name)$
-- Read one value of the store itself.
SELECT value FROM meta WHERE name = :name;

-- name: add_scan(scan_id, name, requested_at, spec)!
-- Write a scan; fails where the id is taken.
INSERT INTO scans (scan_id, name, requested_at, spec)
VALUES (:scan_id, :name, :requested_at, :spec);

-- name: add_chunks*!
-- Plan chunks: state, generation and attempt are the columns' defaults.
INSERT INTO chunks (scan_id, chunk, kind) VALUES (:scan_id, :chunk, :kind);

-- name: unenqueued(scan_id, after, page)
-- One page of the planned chunks that are not marked as enqueued, with their generation.
SELECT chunk, generation FROM chunks
WHERE scan_id = :scan_id AND chunk > :after AND state = 'planned' AND enqueued_at IS NULL
ORDER BY chunk LIMIT :page;

-- name: record_chunk(scan_id, chunk, generation, attempt, state, worker, started_at, finished_at, probes, observations, error, was_kept)!
-- The fence: take the record unless a newer attempt has been recorded, the chunk is cancelled, or it
-- would undo what has finished in the same generation. One that has finished and was kept on a disk
-- meanwhile also stands in for a newer generation of which nothing is recorded yet, and gives way to
-- it. 0 rows: fenced, or unknown.
UPDATE chunks SET
    generation = CASE WHEN generation > :generation THEN generation ELSE :generation END,
    attempt = CASE WHEN generation > :generation THEN 0 ELSE :attempt END,
    state = :state, worker = :worker,
    started_at = :started_at, finished_at = :finished_at,
    probes = :probes, observations = :observations, error = :error
WHERE scan_id = :scan_id AND chunk = :chunk AND state <> 'cancelled'
    AND (generation < :generation OR (generation = :generation AND attempt <= :attempt
        AND NOT (state = 'finished' AND :state <> 'finished'))
        OR (:was_kept AND :state = 'finished' AND state = 'planned' AND attempt = 0));

-- name: plan_page(scan_id, after, page)
-- One page of a scan's chunks as the plan has them.
SELECT chunk, generation, state, enqueued_at IS NOT NULL, observations, probes, attempt FROM chunks
WHERE scan_id = :scan_id AND chunk > :after ORDER BY chunk LIMIT :page;

-- name: finished_chunk(scan_id, chunk, generation)^
-- What a chunk has come to, if it has finished in this generation or a newer one.
SELECT observations, probes FROM chunks
WHERE scan_id = :scan_id AND chunk = :chunk AND generation >= :generation AND state = 'finished';

-- name: unfinished_scans()
-- The scans that have planned chunks.
SELECT DISTINCT scan_id FROM chunks WHERE state = 'planned';

-- name: unenqueued_scans(before, now)
-- The scans that were not asked for between two times, with planned chunks that are not marked as
-- enqueued.
SELECT scan_id FROM scans WHERE NOT (requested_at >= :before AND requested_at <= :now) AND scan_id IN
    (SELECT scan_id FROM chunks WHERE state = 'planned' AND enqueued_at IS NULL);

-- name: cancel_planned(scan_id, finished_at)!
-- Cancel what has not ended.
UPDATE chunks SET state = 'cancelled', finished_at = :finished_at
WHERE scan_id = :scan_id AND state = 'planned';

-- name: delete_rows(scan_id, chunk)!
-- Drop what earlier attempts of this chunk saw.
DELETE FROM observations WHERE scan_id = :scan_id AND chunk = :chunk;

-- name: scan(scan_id)$
-- One scan's record.
SELECT spec FROM scans WHERE scan_id = :scan_id;

-- name: latest_scan(name)$
-- The newest scan's record, of one name or of any.
SELECT spec FROM scans WHERE (:name IS NULL OR name = :name)
ORDER BY requested_at DESC, scan_id DESC LIMIT 1;

-- name: scan_ids(limit)
-- The newest scan ids, to guess which one was meant.
SELECT scan_id FROM scans ORDER BY requested_at DESC, scan_id DESC LIMIT :limit;

-- name: progress(scan_id)^
-- Count one scan's chunks; it has ended when none is still planned.
SELECT :scan_id, COUNT(*),
    COALESCE(SUM(state = 'finished'), 0), COALESCE(SUM(state = 'failed'), 0),
    COALESCE(SUM(state = 'cancelled'), 0), COALESCE(SUM(observations), 0),
    COALESCE(SUM(probes), 0), MIN(started_at),
    CASE WHEN SUM(state = 'planned') = 0 THEN MAX(finished_at) END
FROM chunks WHERE scan_id = :scan_id;

-- name: scans(limit)
-- The newest scans, each with its chunks counted as in `progress`.
SELECT s.spec, p.*
FROM (
    SELECT n.scan_id, COUNT(c.chunk),
        COALESCE(SUM(c.state = 'finished'), 0), COALESCE(SUM(c.state = 'failed'), 0),
        COALESCE(SUM(c.state = 'cancelled'), 0), COALESCE(SUM(c.observations), 0),
        COALESCE(SUM(c.probes), 0), MIN(c.started_at),
        CASE WHEN SUM(c.state = 'planned') = 0 THEN MAX(c.finished_at) END
    FROM (SELECT scan_id FROM scans ORDER BY requested_at DESC, scan_id DESC LIMIT :limit) n
    LEFT JOIN chunks c ON c.scan_id = n.scan_id
    GROUP BY n.scan_id
) p
JOIN scans s ON s.scan_id = p.scan_id
ORDER BY s.requested_at DESC, s.scan_id DESC;

-- name: rows_of_scan(scan_id, low, high, port, kind, since, coverage, after_port, after_kind, after_proto, after_state, after_at, after_key, page)
-- One page of a scan's rows after a given row, by host and port; `low` is that row's host. Each row
-- tells since when and until when the same fact was seen, over all scans: by the whole index, or
-- MySQL would read and sort all times that it was seen.
SELECT o.host_key, o.port, o.kind, o.proto, o.state, o.observed_at, o.row_key,
    o.scan_id, o.host, o.data,
    (SELECT c.worker FROM chunks c WHERE c.scan_id = o.scan_id AND c.chunk = o.chunk),
    (SELECT f.observed_at FROM observations f
        WHERE f.host_key = o.host_key AND f.port = o.port AND f.kind = o.kind
            AND f.proto = o.proto AND f.state = o.state
        ORDER BY f.host_key, f.port, f.kind, f.proto, f.state, f.observed_at LIMIT 1),
    (SELECT f.observed_at FROM observations f
        WHERE f.host_key = o.host_key AND f.port = o.port AND f.kind = o.kind
            AND f.proto = o.proto AND f.state = o.state
        ORDER BY f.host_key DESC, f.port DESC, f.kind DESC, f.proto DESC, f.state DESC, f.observed_at DESC
        LIMIT 1)
FROM observations o
WHERE o.scan_id = :scan_id AND o.host_key >= :low AND o.host_key <= :high
    AND (o.host_key, o.port, o.kind, o.proto, o.state, o.observed_at, o.row_key)
        > (:low, :after_port, :after_kind, :after_proto, :after_state, :after_at, :after_key)
    AND (:port IS NULL OR o.port = :port) AND (:kind IS NULL OR o.kind = :kind)
    AND (:since IS NULL OR o.observed_at >= :since)
    AND (:coverage OR o.state <> 'coverage')
ORDER BY o.host_key, o.port, o.kind, o.proto, o.state, o.observed_at, o.row_key LIMIT :page;

-- name: rows_of_all(low, high, port, kind, since, coverage, after_port, after_kind, after_proto, after_state, after_at, after_key, page)
-- As rows_of_scan, over every scan.
SELECT o.host_key, o.port, o.kind, o.proto, o.state, o.observed_at, o.row_key,
    o.scan_id, o.host, o.data,
    (SELECT c.worker FROM chunks c WHERE c.scan_id = o.scan_id AND c.chunk = o.chunk),
    (SELECT f.observed_at FROM observations f
        WHERE f.host_key = o.host_key AND f.port = o.port AND f.kind = o.kind
            AND f.proto = o.proto AND f.state = o.state
        ORDER BY f.host_key, f.port, f.kind, f.proto, f.state, f.observed_at LIMIT 1),
    (SELECT f.observed_at FROM observations f
        WHERE f.host_key = o.host_key AND f.port = o.port AND f.kind = o.kind
            AND f.proto = o.proto AND f.state = o.state
        ORDER BY f.host_key DESC, f.port DESC, f.kind DESC, f.proto DESC, f.state DESC, f.observed_at DESC
        LIMIT 1)
FROM observations o
WHERE o.host_key >= :low AND o.host_key <= :high
    AND (o.host_key, o.port, o.kind, o.proto, o.state, o.observed_at, o.row_key)
        > (:low, :after_port, :after_kind, :after_proto, :after_state, :after_at, :after_key)
    AND (:port IS NULL OR o.port = :port) AND (:kind IS NULL OR o.kind = :kind)
    AND (:since IS NULL OR o.observed_at >= :since)
    AND (:coverage OR o.state <> 'coverage')
ORDER BY o.host_key, o.port, o.kind, o.proto, o.state, o.observed_at, o.row_key LIMIT :page;

-- name: has_chunk(scan_id, chunk)$
-- Tell whether a chunk is planned here at all.
SELECT COUNT(*) FROM chunks WHERE scan_id = :scan_id AND chunk = :chunk;

-- name: lock_chunk(scan_id, chunk, generation, attempt)!
-- The fence for rows that come after the others of their attempt: 0 rows if that is not the latest.
UPDATE chunks SET worker = worker
WHERE scan_id = :scan_id AND chunk = :chunk AND generation = :generation AND attempt = :attempt
    AND state = 'finished';

-- name: count_rows(scan_id, chunk)!
-- Count a chunk's observations anew.
UPDATE chunks SET observations = (SELECT COUNT(*) FROM observations o
    WHERE o.scan_id = :scan_id AND o.chunk = :chunk AND o.state <> 'coverage')
WHERE scan_id = :scan_id AND chunk = :chunk;

-- name: scans_before(before)
-- The scans asked for before a time, the oldest first.
SELECT scan_id FROM scans WHERE requested_at < :before ORDER BY requested_at, scan_id;

-- name: delete_ended_scan(scan_id)!
-- Forget a scan, but for one that has not ended.
DELETE FROM scans WHERE scan_id = :scan_id AND NOT EXISTS
    (SELECT 1 FROM chunks c WHERE c.scan_id = :scan_id AND c.state = 'planned');

-- name: left_over()
-- The scans that are forgotten and still have chunks.
SELECT c.scan_id FROM (SELECT DISTINCT scan_id FROM chunks) c
LEFT JOIN scans s ON s.scan_id = c.scan_id WHERE s.scan_id IS NULL;

-- name: weight(scan_id)^
-- Count a scan's chunks and its rows.
SELECT (SELECT COUNT(*) FROM chunks WHERE scan_id = :scan_id),
    (SELECT COUNT(*) FROM observations WHERE scan_id = :scan_id);

-- name: delete_chunks(scan_id, last)!
-- Delete a scan's first chunks.
DELETE FROM chunks WHERE scan_id = :scan_id AND chunk <= :last;

-- name: entries()
-- The entries of the command line, and who is paused.
SELECT name, entry, is_paused FROM schedule_entries ORDER BY name;

-- name: add_entry(name, entry, changed_at)!
-- Keep an entry; fails where the name is taken.
INSERT INTO schedule_entries (name, entry, changed_at) VALUES (:name, :entry, :changed_at);

-- name: set_entry(name, entry)!
-- Give an entry to a name that is known.
UPDATE schedule_entries SET entry = :entry WHERE name = :name AND entry IS NULL;

-- name: remove_entry(name)!
-- Forget an entry of the command line.
DELETE FROM schedule_entries WHERE name = :name AND entry IS NOT NULL;

-- name: pause_entry(name, is_paused, changed_at)!
-- Pause or resume an entry that is known here.
UPDATE schedule_entries SET is_paused = :is_paused, changed_at = :changed_at WHERE name = :name;

-- name: last_runs()
-- When each entry was due last, of what is known to have come of it.
SELECT name, MAX(due_at) FROM runs GROUP BY name;

-- name: last_scan(name)$
-- The scan that an entry started last.
SELECT scan_id FROM runs WHERE name = :name AND outcome = 'fired' ORDER BY due_at DESC LIMIT 1;

-- name: runs(count)
-- The newest runs of all entries, the newest first.
SELECT name, due_at, fired_at, lateness_s, outcome, reason, scan_id FROM runs
ORDER BY due_at DESC, name DESC LIMIT :count;

-- name: runs_of(name, count)
-- The newest runs of one entry, the newest first.
SELECT name, due_at, fired_at, lateness_s, outcome, reason, scan_id FROM runs
WHERE name = :name ORDER BY due_at DESC LIMIT :count;
