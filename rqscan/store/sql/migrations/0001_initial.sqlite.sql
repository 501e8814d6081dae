-- Times are text 'YYYY-MM-DD HH:MM:SS.ffffff' in UTC. A statement ends with a semicolon at the end
-- of its line; every statement can be run twice.

CREATE TABLE IF NOT EXISTS schema_migrations (
    version INTEGER NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    checksum TEXT NOT NULL, -- SHA-256 of the file that was applied
    applied_at TEXT NOT NULL
);

CREATE TABLE IF NOT EXISTS meta (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS scans (
    scan_id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    requested_at TEXT NOT NULL,
    spec TEXT NOT NULL -- the whole record, JSON
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS scans_by_time ON scans (requested_at);

CREATE INDEX IF NOT EXISTS scans_by_name ON scans (name, requested_at);

CREATE TABLE IF NOT EXISTS chunks (
    scan_id TEXT NOT NULL,
    chunk INTEGER NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'planned',
    generation INTEGER NOT NULL DEFAULT 1, -- raised each time the chunk is enqueued again
    attempt INTEGER NOT NULL DEFAULT 0, -- of the newest record, within its generation
    enqueued_at TEXT,
    worker TEXT NOT NULL DEFAULT '',
    started_at TEXT,
    finished_at TEXT,
    probes INTEGER NOT NULL DEFAULT 0,
    observations INTEGER NOT NULL DEFAULT 0, -- without coverage rows
    error TEXT,
    PRIMARY KEY (scan_id, chunk)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS observations (
    row_key BLOB NOT NULL PRIMARY KEY, -- what the row is about, hashed: written twice, it is one row
    scan_id TEXT NOT NULL,
    chunk INTEGER NOT NULL, -- whose record wrote it
    kind TEXT NOT NULL,
    host TEXT NOT NULL,
    host_key BLOB NOT NULL, -- IP version and address bytes, so that hosts sort as numbers
    port INTEGER NOT NULL, -- -1: about the host, not a port
    proto TEXT NOT NULL,
    state TEXT NOT NULL,
    data TEXT NOT NULL, -- JSON
    observed_at TEXT NOT NULL
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS observations_by_chunk ON observations (scan_id, chunk);

CREATE INDEX IF NOT EXISTS observations_by_scan
    ON observations (scan_id, host_key, port, kind, proto, state, observed_at);

CREATE INDEX IF NOT EXISTS observations_by_fact
    ON observations (host_key, port, kind, proto, state, observed_at);
