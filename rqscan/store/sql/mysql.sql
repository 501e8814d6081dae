-- The statements that MySQL and MariaDB word in their own way; sqlite.sql has the same names.
-- An INSERT keeps to plain VALUES with parameters only: the driver then sends many rows as one.

-- name: has_migrations()$
-- Tell whether the table of applied migrations is there.
SELECT COUNT(*) FROM information_schema.tables
WHERE table_schema = DATABASE() AND table_name = 'schema_migrations';

-- name: lock_schema()$
-- Keep other migrators out; the lock dies with its connection. 0: not got within 50 s.
SELECT GET_LOCK(CONCAT('rqscan-', MD5(DATABASE())), 50);

-- name: unlock_schema()$
-- Let other migrators in.
SELECT RELEASE_LOCK(CONCAT('rqscan-', MD5(DATABASE())));

-- name: add_meta(name, value)!
-- Write a value once; a later call changes nothing.
INSERT INTO meta (name, value) VALUES (:name, :value) ON DUPLICATE KEY UPDATE value = value;

-- name: mark_enqueued(scan_id, chunks, enqueued_at)!
-- Note when these chunks were put into the queue.
UPDATE chunks SET enqueued_at = :enqueued_at WHERE scan_id = :scan_id AND chunk IN :chunks;

-- name: put_rows*!
-- Write rows; where two chunks saw the same thing, the later observation stays. The assignments are
-- made in this order, so observed_at comes last.
INSERT INTO observations
    (row_key, scan_id, chunk, kind, host, host_key, port, proto, state, data, observed_at)
VALUES
    (:row_key, :scan_id, :chunk, :kind, :host, :host_key, :port, :proto, :state, :data, :observed_at)
ON DUPLICATE KEY UPDATE
    chunk = IF(VALUES(observed_at) >= observed_at, VALUES(chunk), chunk),
    state = IF(VALUES(observed_at) >= observed_at, VALUES(state), state),
    data = IF(VALUES(observed_at) >= observed_at, VALUES(data), data),
    observed_at = GREATEST(VALUES(observed_at), observed_at);
