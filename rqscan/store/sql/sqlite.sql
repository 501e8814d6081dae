-- The statements that SQLite words in its own way; mysql.sql has the same names.

-- name: has_migrations()$
-- Tell whether the table of applied migrations is there.
SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = 'schema_migrations';

-- name: lock_schema()$
-- Nothing to do: BEGIN IMMEDIATE keeps other migrators out, and dies with its process.
SELECT 1;

-- name: unlock_schema()$
-- Nothing to do: the commit unlocks.
SELECT 1;

-- name: add_meta(name, value)!
-- Write a value once; a later call changes nothing.
INSERT INTO meta (name, value) VALUES (:name, :value) ON CONFLICT (name) DO NOTHING;

-- name: mark_enqueued(scan_id, chunks, enqueued_at)!
-- Note when these chunks were put into the queue.
UPDATE chunks SET enqueued_at = :enqueued_at
WHERE scan_id = :scan_id AND chunk IN (SELECT value FROM json_each(:chunks));

-- name: put_rows*!
-- Write rows; where two chunks saw the same thing, the later observation stays.
INSERT INTO observations
    (row_key, scan_id, chunk, kind, host, host_key, port, proto, state, data, observed_at)
VALUES
    (:row_key, :scan_id, :chunk, :kind, :host, :host_key, :port, :proto, :state, :data, :observed_at)
ON CONFLICT (row_key) DO UPDATE SET
    chunk = excluded.chunk,
    state = excluded.state,
    data = excluded.data,
    observed_at = excluded.observed_at
WHERE excluded.observed_at >= observations.observed_at;
