-- What the schedule must not forget: entries of the command line, who is paused, and what came of runs.

CREATE TABLE IF NOT EXISTS schedule_entries (
    name VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    entry LONGTEXT, -- as a table of rqscan.toml, JSON; NULL: it stands there, and this only says that it is paused
    is_paused TINYINT NOT NULL DEFAULT 0,
    changed_at DATETIME(6) NOT NULL
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS runs (
    name VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, -- of the entry
    due_at DATETIME(6) NOT NULL,
    fired_at DATETIME(6) NOT NULL,
    lateness_s DOUBLE NOT NULL,
    outcome VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    reason LONGTEXT NOT NULL,
    scan_id VARCHAR(96) CHARACTER SET ascii COLLATE ascii_bin,
    PRIMARY KEY (name, due_at),
    INDEX runs_by_time (due_at, name)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
