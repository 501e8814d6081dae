-- What the schedule must not forget: entries of the command line, who is paused, and what came of runs.

CREATE TABLE IF NOT EXISTS schedule_entries (
    name TEXT NOT NULL PRIMARY KEY,
    entry TEXT, -- as a table of rqscan.toml, JSON; NULL: it stands there, and this only says that it is paused
    is_paused INTEGER NOT NULL DEFAULT 0,
    changed_at TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS runs (
    name TEXT NOT NULL, -- of the entry
    due_at TEXT NOT NULL,
    fired_at TEXT NOT NULL,
    lateness_s REAL NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT NOT NULL,
    scan_id TEXT,
    PRIMARY KEY (name, due_at)
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS runs_by_time ON runs (due_at, name);
