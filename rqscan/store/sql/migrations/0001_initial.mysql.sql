-- Times are UTC. A statement ends with a semicolon at the end of its line; every statement can be
-- run twice, because this database commits each one by itself.

CREATE TABLE IF NOT EXISTS schema_migrations (
    version INT NOT NULL PRIMARY KEY,
    name VARCHAR(255) NOT NULL,
    checksum CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, -- SHA-256 of the file that was applied
    applied_at DATETIME(6) NOT NULL
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS meta (
    name VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    value VARCHAR(255) NOT NULL
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS scans (
    scan_id VARCHAR(96) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    name VARCHAR(255) NOT NULL,
    requested_at DATETIME(6) NOT NULL,
    spec LONGTEXT NOT NULL, -- the whole record, JSON
    INDEX scans_by_time (requested_at),
    INDEX scans_by_name (name, requested_at)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS chunks (
    scan_id VARCHAR(96) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    chunk INT NOT NULL,
    kind VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    state VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT 'planned',
    generation INT NOT NULL DEFAULT 1, -- raised each time the chunk is enqueued again
    attempt INT NOT NULL DEFAULT 0, -- of the newest record, within its generation
    enqueued_at DATETIME(6),
    worker VARCHAR(255) NOT NULL DEFAULT '',
    started_at DATETIME(6),
    finished_at DATETIME(6),
    probes BIGINT NOT NULL DEFAULT 0,
    observations BIGINT NOT NULL DEFAULT 0, -- without coverage rows
    error LONGTEXT,
    PRIMARY KEY (scan_id, chunk)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS observations (
    row_key BINARY(16) NOT NULL PRIMARY KEY, -- what the row is about, hashed: written twice, it is one row
    scan_id VARCHAR(96) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    chunk INT NOT NULL, -- whose record wrote it
    kind VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    host VARCHAR(255) NOT NULL,
    host_key VARBINARY(255) NOT NULL, -- IP version and address bytes, so that hosts sort as numbers
    port INT NOT NULL, -- -1: about the host, not a port
    proto VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    state VARCHAR(64) NOT NULL,
    data LONGTEXT NOT NULL, -- JSON
    observed_at DATETIME(6) NOT NULL,
    INDEX observations_by_chunk (scan_id, chunk),
    INDEX observations_by_scan (scan_id, host_key, port, kind, proto, state, observed_at),
    INDEX observations_by_fact (host_key, port, kind, proto, state, observed_at)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
