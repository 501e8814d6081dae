-- The statements that MySQL and MariaDB word in their own way; sqlite.sql has the same names.
-- An INSERT keeps to plain VALUES with parameters only: the driver then sends many rows as one.

-- name: has_migrations()$
-- Tell whether the table of applied migrations is there.
SELECT COUNT(*) FROM information_schema.tables
WHERE table_schema = DATABASE() AND table_name = 'schema_migrations';

-- name: lock_schema()$
-- Keep other migrators out; the lock dies with its connection. 0: not got within 50 s.
SELECT GET_LOCK(CONCAT('rqscan-', LEFT(SHA2(DATABASE(), 256), 32)), 50);

-- name: unlock_schema()$
-- Let other migrators in.
SELECT RELEASE_LOCK(CONCAT('rqscan-', LEFT(SHA2(DATABASE(), 256), 32)));

-- name: add_meta(name, value)!
-- Write a value once; a later call changes nothing.
INSERT INTO meta (name, value) VALUES (:name, :value) ON DUPLICATE KEY UPDATE value = value;

-- name: longest_statement()$
-- The most bytes of one statement.
SELECT @@max_allowed_packet;

-- name: mark_enqueued(scan_id, chunks, generation, enqueued_at)!
-- Note when these chunks were put into the queue, if they are still of the generation that was put.
UPDATE chunks SET enqueued_at = :enqueued_at
WHERE scan_id = :scan_id AND chunk IN :chunks AND generation = :generation;

-- name: raise_generation(scan_id, chunks, generation)!
-- Plan chunks to be enqueued again, where nobody else has done so since this generation.
UPDATE chunks SET generation = generation + 1, attempt = 0, enqueued_at = NULL
WHERE scan_id = :scan_id AND chunk IN :chunks AND generation = :generation
    AND state = 'planned' AND enqueued_at IS NOT NULL;

-- name: plan_again(scan_id, chunks)!
-- Plan chunks that have failed or were cancelled as if they were new, in their next generation.
UPDATE chunks SET state = 'planned', generation = generation + 1, attempt = 0, enqueued_at = NULL,
    worker = '', started_at = NULL, finished_at = NULL, probes = 0, error = NULL
WHERE scan_id = :scan_id AND chunk IN :chunks AND state IN ('failed', 'cancelled');

-- name: cancel_failed(scan_id, chunks, finished_at)!
-- Cancel chunks whose last attempt failed and that were to be tried again.
UPDATE chunks SET state = 'cancelled', finished_at = :finished_at
WHERE scan_id = :scan_id AND chunk IN :chunks AND state = 'failed';

-- name: cancel_some(scan_id, chunks, finished_at)!
-- Cancel chunks that have not finished: an operator has taken their jobs away.
UPDATE chunks SET state = 'cancelled', finished_at = :finished_at
WHERE scan_id = :scan_id AND chunk IN :chunks
    AND state IN ('planned', 'failed');

-- name: reopen(scan_id, chunks)!
-- Plan failed chunks whose jobs are to run again, in the same generation and after their attempts.
UPDATE chunks SET state = 'planned', finished_at = NULL, error = NULL
WHERE scan_id = :scan_id AND chunk IN :chunks AND state = 'failed';

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

-- name: now()$
-- The time by the server's clock.
SELECT UTC_TIMESTAMP(6);

-- name: lock_some_chunks(scan_id, page)
-- A scan's first chunks, kept from others until the commit.
SELECT chunk FROM chunks WHERE scan_id = :scan_id ORDER BY chunk LIMIT :page FOR UPDATE;

-- name: delete_some_rows(scan_id, last, page)!
-- Delete some of the rows of a scan's first chunks.
DELETE FROM observations WHERE scan_id = :scan_id AND chunk <= :last LIMIT :page;

-- name: add_run(name, due_at, fired_at, lateness_s, outcome, reason, scan_id)!
-- Note what came of a run; what was noted first stands.
INSERT INTO runs (name, due_at, fired_at, lateness_s, outcome, reason, scan_id)
VALUES (:name, :due_at, :fired_at, :lateness_s, :outcome, :reason, :scan_id)
ON DUPLICATE KEY UPDATE outcome = outcome;

-- name: delete_some_runs(name, before, page)!
-- Forget some of the runs of an entry that were due before a time.
DELETE FROM runs WHERE name = :name AND due_at < :before LIMIT :page;

-- name: upkeep()
-- What its planner knows of the tables is brought up to date.
ANALYZE TABLE scans, chunks, observations, runs;
