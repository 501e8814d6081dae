-- The statements of the spool (docs/spool-format.md), for SQLite alone.

-- name: make_records()!
CREATE TABLE records (
    id INTEGER PRIMARY KEY AUTOINCREMENT, -- in the order of coming; never given twice
    store_id TEXT NOT NULL, -- of the store that it is for; empty: not known when it came
    rows INTEGER NOT NULL,
    is_part INTEGER NOT NULL, -- 1: its rows come after the others of their attempt
    spooled_at TEXT NOT NULL,
    record BLOB NOT NULL -- the chunk's record with its rows, JSON
);

-- name: make_index()!
CREATE INDEX records_by_store ON records (store_id, rows);

-- name: make_quarantine()!
CREATE TABLE quarantine (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    store_id TEXT NOT NULL,
    rows INTEGER NOT NULL,
    is_part INTEGER NOT NULL,
    first_seen TEXT NOT NULL,
    code TEXT NOT NULL, -- of the store's error
    reason TEXT NOT NULL, -- the store's words
    record BLOB NOT NULL -- the chunk's record with the refused rows alone
);

-- name: seed_ids()!
-- No two files give the same ids: what was read of one that is set aside is removed of no other.
INSERT INTO sqlite_sequence (name, seq)
VALUES ('records', (abs(random()) % 1000000000) * 1000000), ('quarantine', 0);

-- name: add_record(store_id, rows, is_part, spooled_at, record)!
INSERT INTO records (store_id, rows, is_part, spooled_at, record)
VALUES (:store_id, :rows, :is_part, :spooled_at, :record);

-- name: oldest(store_id, count)
-- The oldest records that are for a store, without their content.
SELECT id, rows, length(record) FROM records
WHERE +store_id IN (:store_id, '') ORDER BY id LIMIT :count;

-- name: contents(first, last, store_id)
SELECT id, rows, is_part, record FROM records
WHERE id BETWEEN :first AND :last AND +store_id IN (:store_id, '') ORDER BY id;

-- name: remove*!
DELETE FROM records WHERE id = :id;

-- name: change(id, rows, record)!
-- Leave of a record what the store may take.
UPDATE records SET rows = :rows, record = :record WHERE id = :id;

-- name: totals()^
-- Records, rows, and when the oldest came.
SELECT COUNT(*), COALESCE(SUM(rows), 0), (SELECT spooled_at FROM records ORDER BY id LIMIT 1),
    (SELECT COUNT(*) FROM quarantine)
FROM records;

-- name: set_aside(id, rows, is_part, first_seen, code, reason, record)!
-- Put into quarantine what the store refuses of record `id`, which is still there.
INSERT INTO quarantine (store_id, rows, is_part, first_seen, code, reason, record)
SELECT store_id, :rows, :is_part, :first_seen, :code, :reason, :record FROM records WHERE id = :id;

-- name: quarantined(after, page)
SELECT id, rows, first_seen, code, reason, record FROM quarantine WHERE id > :after
ORDER BY id LIMIT :page;

-- name: put_back(id, spooled_at)!
INSERT INTO records (store_id, rows, is_part, spooled_at, record)
SELECT store_id, rows, is_part, :spooled_at, record FROM quarantine WHERE id = :id;

-- name: drop_quarantined(id)!
DELETE FROM quarantine WHERE id = :id;

-- name: scans()
-- The scans that something here is of, in quarantine too; what cannot be read tells of none.
SELECT DISTINCT json_extract(record, '$.scan_id') FROM (
    SELECT CAST(record AS TEXT) AS record FROM records
    UNION ALL SELECT CAST(record AS TEXT) FROM quarantine
) WHERE json_valid(record);
